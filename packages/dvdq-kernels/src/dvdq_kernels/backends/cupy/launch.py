"""Starting a kernel: on a GPU, on a CPU that emulates one, or only writing down that it would be started.

Every kernel of this backend is started through :func:`launch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from dvdq_kernels.backends.cupy import emulation
from dvdq_kernels.backends.cupy.cubin import cubin
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_kernels.backends.cupy.target import is_emulated, target_of
from dvdq_kernels.gpu import recorded, refuse_in_capture, shared_memory

_GRANTED = 48 * 1024
"""Bytes of shared memory that a block may take unasked (CUDA C++ Programming Guide)."""


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
    """

    kernel: str
    file: str
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    grid: int
    threads: int
    shared: int = 0
    tile: str = ""

    @property
    def description(self) -> str:
        """The kernel, its tile and threads, e.g. ``product_mma 128×256×128, 256 threads``."""
        words = [f"{self.kernel} {self.tile}".strip(), f"{self.threads} threads"]
        return ", ".join(words)


def launch(launch: Launch) -> None:
    """Start a kernel on the device and the current stream of its first tensor, unless its grid is empty."""
    if launch.grid == 0:
        return
    record = recorded()
    if record is not None:
        record.launches.append(launch)
        return
    if is_emulated():
        source = translation_unit(launch.file, launch.constants)
        emulation.run(launch.kernel, source, launch.arguments, launch.grid, launch.threads, launch.shared)
    else:
        _start(launch)


def _start(launch: Launch) -> None:
    import cupy

    device = next(a.device for a in launch.arguments if isinstance(a, torch.Tensor))
    constants = tuple(launch.constants.items())
    large = launch.shared > _GRANTED
    function = _function(launch.kernel, launch.file, constants, target_of(device), device, large)
    arguments = tuple(_argument(argument) for argument in launch.arguments)
    with cupy.cuda.Device(device.index), cupy.cuda.Stream.from_external(torch.cuda.current_stream(device)):
        function((launch.grid,), (launch.threads,), arguments, shared_mem=launch.shared)


def _argument(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return np.uint64(argument.data_ptr())
    return np.uint64(0) if argument is None else argument


@cache
def _function(
    kernel: str, file: str, constants: tuple[tuple[str, Any], ...], target: int, device: torch.device, large: bool
) -> Any:
    """The loaded kernel; ``large`` allows it all the shared memory of a block, as its launches ask for unlike."""
    import cupy

    refuse_in_capture(kernel, device)
    path = cubin(translation_unit(file, dict(constants)), target)
    with cupy.cuda.Device(device.index):
        function = cupy.RawModule(path=str(path)).get_function(kernel)
        if large:
            function.max_dynamic_shared_size_bytes = shared_memory(target) - function.shared_size_bytes
    return function
