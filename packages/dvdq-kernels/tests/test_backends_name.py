"""``backends`` is a function and a folder: neither hides the other."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dvdq_kernels
from dvdq_kernels import registry


@pytest.mark.parametrize(
    "code",
    [
        "import dvdq_kernels.backends.torch as t; t.rotate_quantize",
        "import dvdq_kernels; dvdq_kernels.backends.torch.rotate_quantize",
        "from dvdq_kernels.backends import torch; torch.rotate_quantize",
        "from dvdq_kernels import backends; assert backends()['torch'] is None",
    ],
)
def test_both_are_reached(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_call_is_the_registrys() -> None:
    assert dvdq_kernels.backends() == registry.backends()
    assert not hasattr(dvdq_kernels.backends, "no_backend")
