"""What each linear of the models would take at best on three GPUs, by either backend: estimates, not measurements.

Writes ``docs/data/estimates.csv``, from data sheets and from the machine code of the products, which is compiled here.
A test holds it against a new compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from benchmarks.machine_code import DATA, Operator, code_of, formats, linear, write
from benchmarks.measuring.roofline import GPUS, Gpu, estimate_product
from benchmarks.measuring.workloads import linears, name
from dvdq_kernels.backends.cupy import operators as cupy
from dvdq_kernels.backends.triton import operators as triton
from dvdq_kernels.backends.triton.compilation import compile_launch
from dvdq_kernels.gpu import recording
from dvdq_kernels.sass import tensor_loop, tensor_stretch

ESTIMATES = DATA / "estimates.csv"

Loop = tuple[int, int]
"""Instructions of one turn of a main loop, and what a warp multiplies and adds in it."""


@dataclass(frozen=True)
class Bound:
    """What a product takes at best, in milliseconds, and one in bf16."""

    gpu: str
    shape: str
    format: str
    backend: str
    kernel: str
    tensor_ms: float
    issue_ms: float
    memory_ms: float
    least_ms: float
    bound: str
    bf16_ms: float


@dataclass(frozen=True)
class Backend:
    """Whose product it is: its function, whether it takes packed codes, and a launch's main loop."""

    name: str
    integer_linear: Callable[..., torch.Tensor]
    takes_packed: bool
    loop: Callable[[Any, int], Loop]


def _cupy_loop(launch: Any, target: int) -> Loop:
    found = code_of("", launch, target)
    return found.loop_instructions, found.loop_multiplied


def _triton_loop(launch: Any, target: int) -> Loop:
    code = compile_launch(launch, target).sass
    found = tensor_loop(code)
    return found if found[1] else tensor_stretch(code)


BACKENDS = (
    Backend("cupy", cupy.integer_linear, True, _cupy_loop),
    Backend("triton", triton.integer_linear, False, _triton_loop),
)


def bounds(gpus: Iterable[Gpu] = GPUS) -> list[Bound]:
    """Every GPU, shape, format and backend."""
    loops: dict[tuple[Any, ...], Loop] = {}
    return [
        _bound(gpu, shape, title, format_, backend, loops)
        for gpu in gpus
        for shape in linears()
        for title, format_ in formats(gpu.capability).items()
        for backend in BACKENDS
    ]


def _bound(
    gpu: Gpu,
    shape: Sequence[int],
    title: str,
    format_: dict[str, Any],
    backend: Backend,
    loops: dict[tuple[Any, ...], Loop],
) -> Bound:
    packed = format_["packed"] and backend.takes_packed
    launch = _last(linear(shape, {**format_, "packed": packed}, backend.integer_linear), gpu.capability)
    tile = launch.constants["BLOCK_M"], launch.constants["BLOCK_N"]
    # Of one tile and format the loop is the same at any shape, as good as: it is compiled once.
    key = backend.name, gpu.capability, format_["blocks"], packed, tile
    if key not in loops:
        loops[key] = backend.loop(launch, gpu.capability)
    unit, x_bytes = ("s4", 0.5) if packed else ("s8", 1.0)
    found = estimate_product(gpu, (shape[0], shape[1], shape[2]), tile, unit, x_bytes, loops[key])
    times = (round(time, 3) for time in (found.tensor, found.issue, found.bytes, found.least))
    bf16 = round(2 * prod(shape) / gpu.tensor["bf16"] / 1e9, 3)
    return Bound(gpu.name, name(tuple(shape)), title, backend.name, launch.description, *times, found.bound, bf16)


def _last(operator: Operator, target: int) -> Any:
    """The product, which an operator starts after all else."""
    with recording(target) as record:
        operator()
    return record.launches[-1]


def main(arguments: Sequence[str]) -> None:
    """Writes the table in place of what was there."""
    write(ESTIMATES, bounds())
    print(ESTIMATES)
