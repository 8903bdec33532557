"""The page on adding a backend, followed to the letter: its files are written, imported and held to conformance."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conformance import checks

import dvdq_kernels as kernels
from dvdq_kernels.backend import Backend
from dvdq_kernels.call import Call, Place
from dvdq_kernels.registry import registered
from dvdq_kernels.selection import select
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Rotation, WeightRule

PAGE = (Path(__file__).parents[2] / "docs/backends.md").read_text()
FILES = dict(re.findall(r"^```python\n# (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    for name in ("toy/__init__.py", "toy/operators.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(FILES[name])
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("toy").BACKEND
    for module in [module for module in sys.modules if module.partition(".")[0] == "toy"]:
        del sys.modules[module]


def test_the_script_runs(toy: Backend) -> None:
    exec(compile(FILES["a script"], "backends.md", "exec"), {})


def test_operators_are_imported_when_they_are_called(toy: Backend) -> None:
    with registered(toy):
        assert select(Call("rotate", Place("cpu"), dtype=torch.bfloat16)).backend is toy
        assert "toy.operators" not in sys.modules
        kernels.rotate(torch.randn(2, 256), Rotation())
    assert "toy.operators" in sys.modules


@pytest.mark.parametrize("rotation", [Rotation("full", seed=3), Rotation("block"), Rotation("regular")], ids=str)
def test_its_rotation_is_the_oracle_s(toy: Backend, rotation: Rotation) -> None:
    with registered(toy):
        checks.check_rotation("toy", "cpu", rotation, 768)


@pytest.mark.parametrize("rule", [WeightRule(4, "minmax", 64), WeightRule(8, "minmax", symmetric=True)], ids=str)
def test_its_decoding_is_that_of_the_others(toy: Backend, rule: WeightRule) -> None:
    qweight = kernels.quantize_weight(torch.randn(5, 256), rule)
    with registered(toy):
        assert torch.equal(kernels.dequantize(qweight, backend="toy"), kernels.dequantize(qweight, backend="torch"))


def test_what_it_cannot_do_is_said(toy: Backend) -> None:
    x = torch.randn(2, 256, dtype=torch.float64)
    with registered(toy):
        assert select(Call("rotate", Place("cpu"), dtype=x.dtype)).refused["toy"] == "computes in float32, not float64"
        with pytest.raises(DvdqError, match=r"toy \(computes in float32, not float64\)"):
            kernels.rotate(x, Rotation(), backend="toy")
        with pytest.raises(DvdqError, match=r"toy \(has dequantize, rotate alone\)"):
            kernels.quantize_weight(x, WeightRule(), backend="toy")
