"""The GPU that kernels are chosen for: one at hand, one that is only planned for, or what the interpreter assumes."""

from __future__ import annotations

import os

import torch

from dvdq_kernels import gpu

INTERPRETED = 80
"""The compute capability that host code assumes in Triton's interpreter, which runs any configuration."""


def interprets() -> bool:
    """Whether Triton's kernels run on a CPU, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def target_of(device: torch.device) -> int:
    """The compute capability to choose kernels and tiles for, e.g. 90."""
    return gpu.target_of(device, INTERPRETED)
