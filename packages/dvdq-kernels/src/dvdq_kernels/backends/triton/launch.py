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
import triton

INTERPRETED = 80
"""The compute capability that host code assumes in Triton's interpreter, which runs any configuration."""

_SHARED_MEMORY = {80: 166912, 87: 166912, 90: 232448, 100: 232448, 103: 232448}
_LEAST_SHARED_MEMORY = 101376
"""That of the others: 8.6, 8.9, 12.0."""

_TILE = ("BLOCK_M", "BLOCK_N", "BLOCK_K")


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments by name; tensors among ``arguments`` may be on the meta device.

    ``note`` says where its tiles come from, if they were chosen among several.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int
    note: str

    @property
    def description(self) -> str:
        """The kernel, its tile, warps and stages, e.g. ``integer_product 128×256×128, 8 warps, 4 stages (rule)``."""
        tile = "×".join(str(self.constants[name]) for name in _TILE if name in self.constants)
        words = [f"{self.kernel.__name__.strip('_')} {tile}".strip(), f"{self.warps} warps", f"{self.stages} stages"]
        return ", ".join(words) + (f" ({self.note})" if self.note else "")


@dataclass
class Recording:
    """What :func:`recording` gathers, for a GPU of compute capability ``target`` (90 for 9.0) and of this name."""

    target: int
    device_name: str | None
    launches: list[Launch] = field(default_factory=list)


_recording: ContextVar[Recording | None] = ContextVar("dvdq_triton_recording", default=None)


@contextmanager
def recording(target: int, device_name: str | None = None) -> Iterator[Recording]:
    """In a ``with`` block, launches are written down and not run; a GPU of no name is one that nobody measured."""
    record = Recording(target, device_name)
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


def device_name_of(device: torch.device) -> str | None:
    """The name under which a GPU's measurements are kept; None for any other device."""
    record = _recording.get()
    if record is not None:
        return record.device_name
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def shared_memory(target: int) -> int:
    """Bytes of shared memory that a program can have at a compute capability (CUDA C++ Programming Guide)."""
    return _SHARED_MEMORY.get(target, _LEAST_SHARED_MEMORY)


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors ``device`` has; 132, an H100's, where none is at hand."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def options(warps: int, stages: int) -> dict[str, int | bool]:
    """What the compiler is told. Fused multiply-adds are asked for by name: Triton is about to change its default."""
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}


def held_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which dtype a kernel multiplies and stores what is of ``dtype``; a result is cast to it afterwards.

    It is ``dtype`` on a GPU. Triton's interpreter multiplies the bits of a bfloat16 and, where a GPU rounds to the
    nearest, cuts bits off: there it is float32, which holds every product of two bfloat16, and torch rounds.
    """
    return torch.float32 if dtype == torch.bfloat16 and triton.knobs.runtime.interpret else dtype


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],
    constants: dict[str, Any],
    *,
    warps: int = 4,
    stages: int = 3,
    note: str = "",
) -> None:
    """Start ``kernel`` on the device and stream of its first tensor, unless its grid is empty.

    Args:
        kernel: a ``triton.jit`` function.
        grid: programs along up to three axes.
        arguments: run-time arguments by name; at least one tensor.
        constants: ``tl.constexpr`` arguments by name.
        warps: warps a program.
        stages: software-pipelining depth.
        note: where its tiles come from.
    """
    if 0 in grid:
        return
    record = _recording.get()
    if record is not None:
        record.launches.append(Launch(kernel, grid, arguments, constants, warps, stages, note))
        return
    device = next(a.device for a in arguments.values() if isinstance(a, torch.Tensor))
    with torch.cuda.device(device if device.type == "cuda" else -1):  # a negative one changes nothing
        kernel[grid](**arguments, **constants, **options(warps, stages))
