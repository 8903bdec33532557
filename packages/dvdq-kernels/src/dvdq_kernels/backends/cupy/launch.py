"""Starting a kernel: on a GPU, on a CPU that emulates one, or only writing down that it would be started.

Every kernel of this backend is started through :func:`launch`. Inside :func:`recording` nothing runs: operators called
on meta tensors leave the launches that a GPU of the given compute capability would get, which
:mod:`~dvdq_kernels.backends.cupy.compilation` can compile without that GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from dvdq_kernels.backends.cupy import emulation
from dvdq_kernels.backends.cupy.compilation import cubin
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_kernels.refusals import emulated_capability, is_emulated

_SHARED_MEMORY = {80: 166912, 87: 166912, 90: 232448, 100: 232448, 103: 232448}
_LEAST_SHARED_MEMORY = 101376
"""That of the others: 8.6, 8.9, 12.0."""


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments in order; tensors among ``arguments`` may be on the meta device.

    Attributes:
        kernel: the function's name.
        file: where in the folder ``cuda`` it stands.
        arguments: tensors, None, or NumPy scalars, which include structures.
        constants: what is known when it is compiled, by name (:func:`~.sources.translation_unit`).
        grid: blocks.
        threads: in a block.
        shared: bytes of dynamic shared memory a block.
        tile: how it divides its work, in words.
        note: where that choice comes from, if there were several.
    """

    kernel: str
    file: str
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    grid: int
    threads: int
    shared: int = 0
    tile: str = ""
    note: str = ""

    @property
    def description(self) -> str:
        """The kernel, its tile and threads, e.g. ``product_mma 128×256×128, 256 threads (rule)``."""
        words = [f"{self.kernel} {self.tile}".strip(), f"{self.threads} threads"]
        return ", ".join(words) + (f" ({self.note})" if self.note else "")


@dataclass
class Recording:
    """What :func:`recording` gathers, for a GPU of compute capability ``target`` (90 for 9.0) and of this name."""

    target: int
    device_name: str | None
    launches: list[Launch] = field(default_factory=list)


_recording: ContextVar[Recording | None] = ContextVar("dvdq_cupy_recording", default=None)


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
    """The compute capability to choose kernels for, e.g. 90."""
    record = _recording.get()
    if record is not None:
        return record.target
    pretended = emulated_capability()
    if pretended is not None:
        return pretended
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def device_name_of(device: torch.device) -> str | None:
    """The name under which a GPU's measurements are kept; None where none is at hand."""
    record = _recording.get()
    if record is not None:
        return record.device_name
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def shared_memory(target: int) -> int:
    """Bytes of shared memory that a block can have at a compute capability (CUDA C++ Programming Guide)."""
    return _SHARED_MEMORY.get(target, _LEAST_SHARED_MEMORY)


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors ``device`` has; two if it is emulated, and 132, an H100's, where none is at hand."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 132 if _recording.get() is not None else 2


def launch(launch: Launch) -> None:
    """Start a kernel on the device and the current stream of its first tensor, unless its grid is empty."""
    if launch.grid == 0:
        return
    record = _recording.get()
    if record is not None:
        record.launches.append(launch)
        return
    source = translation_unit(launch.file, launch.constants)
    if is_emulated():
        emulation.run(launch.kernel, source, launch.arguments, launch.grid, launch.threads, launch.shared)
    else:
        _start(launch, source)


def _start(launch: Launch, source: str) -> None:
    import cupy

    device = next(a.device for a in launch.arguments if isinstance(a, torch.Tensor))
    function = _function(launch.kernel, source, target_of(device), device.index, launch.shared)
    stream = torch.cuda.current_stream(device).cuda_stream
    arguments = tuple(_argument(argument) for argument in launch.arguments)
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(stream, device.index):
        function((launch.grid,), (launch.threads,), arguments, shared_mem=launch.shared)


def _argument(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return np.uint64(argument.data_ptr())
    return np.uint64(0) if argument is None else argument


@cache
def _function(kernel: str, source: str, target: int, device: int, shared: int) -> Any:
    """The loaded kernel, allowed ``shared`` bytes."""
    import cupy

    with cupy.cuda.Device(device):
        function = cupy.RawModule(path=str(cubin(source, target))).get_function(kernel)
        function.max_dynamic_shared_size_bytes = shared
    return function
