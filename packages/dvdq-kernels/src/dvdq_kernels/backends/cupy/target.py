"""The GPU that kernels are chosen for: one at hand, one that is only planned for, or one that a CPU emulates."""

from __future__ import annotations

import os

import torch

from dvdq_kernels import gpu

EMULATE = "DVDQ_CUPY_EMULATE"
"""Names a compute capability, e.g. 89: the kernels then run on a CPU as such a GPU would run them."""

_OLDEST = 80
_EMULATED_MULTIPROCESSORS = 2


def is_emulated() -> bool:
    """Whether the kernels are to run on a CPU."""
    return bool(os.environ.get(EMULATE))


def emulated_capability() -> int | None:
    """The compute capability to emulate, e.g. 89; None if none from 80 on is named."""
    value = os.environ.get(EMULATE, "")
    return int(value) if value.isdecimal() and int(value) >= _OLDEST else None


def target_of(device: torch.device) -> int:
    """The compute capability to choose kernels and tiles for, e.g. 90."""
    return gpu.target_of(device, assumed())


def assumed() -> int:
    """That where no GPU is at hand."""
    return emulated_capability() or _OLDEST


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors ``device`` has; two if it is emulated."""
    if is_emulated() and gpu.recorded() is None and device.type != "cuda":
        return _EMULATED_MULTIPROCESSORS
    return gpu.multiprocessors(device)
