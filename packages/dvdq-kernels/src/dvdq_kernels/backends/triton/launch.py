"""Starting a kernel, or only writing down that it would be started.

Every kernel of this backend is started through :func:`launch`. Inside :func:`recording` nothing runs: operators called
on meta tensors leave the launches that a GPU of the given compute capability would get, which
:mod:`~dvdq_kernels.backends.triton.compilation` can compile without that GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

INTERPRETED = 80
"""The compute capability that host code assumes in Triton's interpreter, which runs any configuration."""


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments by name; tensors among ``arguments`` may be on the meta device."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int


@dataclass
class Recording:
    """What :func:`recording` gathers, for a GPU of compute capability ``target`` (90 for 9.0)."""

    target: int
    launches: list[Launch] = field(default_factory=list)


_recording: ContextVar[Recording | None] = ContextVar("dvdq_triton_recording", default=None)


@contextmanager
def recording(target: int) -> Iterator[Recording]:
    """In a ``with`` block, launches are written down and not run."""
    record = Recording(target)
    token = _recording.set(record)
    try:
        yield record
    finally:
        _recording.reset(token)


def target_of(device: torch.device) -> int:
    """The compute capability to choose configurations for, e.g. 90."""
    record = _recording.get()
    if record is not None:
        return record.target
    if device.type != "cuda":
        return INTERPRETED
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors ``device`` has; 132, an H100's, where none is at hand."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],
    constants: dict[str, Any],
    *,
    warps: int = 4,
    stages: int = 3,
) -> None:
    """Start ``kernel`` on the device and stream of its first tensor, unless its grid is empty.

    Args:
        kernel: a ``triton.jit`` function.
        grid: programs along up to three axes.
        arguments: run-time arguments by name; at least one tensor.
        constants: ``tl.constexpr`` arguments by name.
        warps: warps a program.
        stages: software-pipelining depth.
    """
    if 0 in grid:
        return
    record = _recording.get()
    if record is not None:
        record.launches.append(Launch(kernel, grid, arguments, constants, warps, stages))
        return
    device = next(a.device for a in arguments.values() if isinstance(a, torch.Tensor))
    with torch.cuda.device(device if device.type == "cuda" else None):
        kernel[grid](**arguments, **constants, num_warps=warps, num_stages=stages)
