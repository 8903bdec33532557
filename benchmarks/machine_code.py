"""What NVRTC makes of each CUDA kernel on each GPU that it is for; none has to be at hand.

Writes ``docs/data/machine-code.csv``: registers, stack, shared memory, the blocks that a multiprocessor holds and the
instructions that matter, of a product also those of its main loop. A test holds it against a new compilation.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.roofline import MULTIPROCESSORS
from dvdq_kernels.backends.cupy import operators as cupy
from dvdq_kernels.backends.cupy.compilation import Compiled, compile_launch
from dvdq_kernels.backends.cupy.launch import Launch
from dvdq_kernels.gpu import recording
from dvdq_reference.spec.recipe import BGR_BOUNDS, BGR_TOLERANCE, DEFAULT_BLOCK

DATA = Path(__file__).parents[1] / "docs/data"
CODE = DATA / "machine-code.csv"
TENSOR_CORES = {"int4": r"IMMA\..*S4", "int8": r"IMMA\..*S8", "wgmma int8": r"IGMMA", "16-bit": r"HMMA|HGMMA"}
NVRTC = "nvidia-cuda-nvrtc"

Operator = Callable[[], object]


@dataclass(frozen=True)
class Code:
    """One kernel on one GPU; ``tensor_cores`` counts instructions by kind, ``local`` those that touch a spill."""

    case: str
    kernel: str
    tile: str
    target: int
    threads: int
    registers: int
    stack: int
    local: int
    shared: int
    resident: int
    occupancy: float
    tensor_cores: str
    shuffles: int
    instructions: int
    loop_instructions: int
    loop_multiplied: int
    nvrtc: str


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that holds nothing."""
    return torch.empty(shape, dtype=dtype, device="meta")


def product(
    integer_linear: Callable[..., torch.Tensor],
    tokens: int,
    out: int,
    channels: int,
    *,
    x_bits: int,
    packed: bool,
    blocks: int,
    groups: int = 1,
) -> None:
    """A linear on codes, without values, by a backend's function."""
    codes = empty(tokens, channels // 2, dtype=torch.uint8) if packed else empty(tokens, channels, dtype=torch.int8)
    x_scale, token_sum = empty(tokens, blocks, dtype=torch.float32), empty(tokens, dtype=torch.float32)
    qweight = empty(out, channels // 2, dtype=torch.uint8)
    scale, zero = empty(out, groups, dtype=torch.float32), empty(out, groups, dtype=torch.int16)
    bias = empty(out, dtype=torch.bfloat16)
    integer_linear(codes, x_scale, token_sum, qweight, scale, zero, bias, x_bits, 4, torch.bfloat16)


def quantized(tokens: int, channels: int, *, bits: int, block: int | None, kind: str | None, packed: bool) -> None:
    """Activations to codes, without values."""
    x = empty(tokens, channels, dtype=torch.bfloat16)
    cupy.rotate_quantize(x, bits, block, "gaussian" if bits == 4 else "absmax", kind, None, packed)


def weight(out: int, channels: int, grid: str) -> None:
    """A weight to codes, without values."""
    given = empty(out, channels, dtype=torch.bfloat16)
    cupy.quantize_weight(given, 4, grid, None, False, BGR_BOUNDS, BGR_TOLERANCE)


def decoded(out: int, channels: int) -> None:
    """Codes to a weight, without values."""
    grid = empty(out, 1, dtype=torch.float32), empty(out, 1, dtype=torch.int16)
    cupy.dequantize(empty(out, channels // 2, dtype=torch.uint8), *grid, 4, channels)


def weight_only(tokens: int, out: int, channels: int) -> None:
    """A linear on full activations, without values."""
    grid = empty(out, 1, dtype=torch.float32), empty(out, 1, dtype=torch.int16)
    x, qweight = empty(tokens, channels, dtype=torch.bfloat16), empty(out, channels // 2, dtype=torch.uint8)
    cupy.float_linear(x, qweight, *grid, empty(out, dtype=torch.bfloat16), 4, None, None)


def formats(target: int) -> dict[str, dict[str, Any]]:
    """The formats of a linear that a GPU gets: INT4 tensor cores take two codes a byte."""
    packed = target // 10 == 8
    return {
        "W4A8 token": {"x_bits": 8, "packed": False, "blocks": 1},
        f"W4A8 block {DEFAULT_BLOCK}": {"x_bits": 8, "packed": False, "blocks": None},
        "W4A4 token": {"x_bits": 4, "packed": packed, "blocks": 1},
        f"W4A4 block {DEFAULT_BLOCK}": {"x_bits": 4, "packed": packed, "blocks": None},
    }


def linear(
    shape: Sequence[int],
    format_: dict[str, Any],
    integer_linear: Callable[..., torch.Tensor] = cupy.integer_linear,
    **options: int,
) -> Operator:
    """The product of a format at a shape."""
    tokens, out, channels = shape
    blocks = format_["blocks"] or channels // DEFAULT_BLOCK
    return partial(product, integer_linear, tokens, out, channels, **{**format_, "blocks": blocks, **options})


def cases(target: int) -> Iterable[tuple[str, Operator]]:
    """Every kernel that a GPU may get, at sizes of the models."""
    many, few = (118_800, 12288, 3072), (16, 3072, 3072)
    for title, format_ in formats(target).items():
        yield f"{title}, many tokens", linear(many, format_)
        yield f"{title}, few tokens", linear(few, format_)
    yield "W4A8 groups", linear(many, formats(target)["W4A8 token"], groups=24)
    # The compiler makes these of other instructions where there are no INT4 tensor cores: right, and slow.
    yield "W4A4 packed, many tokens", linear(many, {"x_bits": 4, "packed": True, "blocks": 1})
    for channels in (1536, 3072, 5120, 8960, 12288, 13824, 14336, 15360):
        yield (
            f"rotated {channels}",
            partial(quantized, 75_600, channels, bits=4, block=DEFAULT_BLOCK, kind="full", packed=target // 10 == 8),
        )
    yield "rotated 5120, token", partial(quantized, 75_600, 5120, bits=8, block=None, kind="full", packed=False)
    yield (
        "rotated 3072, blocks",
        partial(quantized, 75_600, 3072, bits=8, block=DEFAULT_BLOCK, kind="block", packed=False),
    )
    yield "quantized 3072", partial(quantized, 75_600, 3072, bits=8, block=DEFAULT_BLOCK, kind=None, packed=False)
    yield "min-max", partial(weight, 5120, 13824, "minmax")
    yield "BGR", partial(weight, 5120, 13824, "bgr")
    yield "decoded", partial(decoded, 5120, 13824)
    yield "W4A16", partial(weight_only, 1, 18432, 3072)


def launches(operator: Operator, target: int) -> list[Launch]:
    """What an operator starts on a GPU that nobody measured."""
    with recording(target) as record:
        operator()
    return record.launches


_Key = tuple[int, str, str, int, int]
_COMPILED: dict[_Key, Compiled] = {}


def key_of(launch: Launch, target: int) -> _Key:
    """What makes a launch's machine code and its occupancy."""
    return target, launch.kernel, str(launch.constants), launch.threads, launch.shared


def code_of(case: str, launch: Launch, target: int) -> Code:
    """Compiles a launch, if that was not done, and counts."""
    key = key_of(launch, target)
    if key not in _COMPILED:
        _COMPILED[key] = compile_launch(launch, target)
    found = _COMPILED[key]
    held = MULTIPROCESSORS[target]
    usage = launch.threads, found.registers, found.shared
    kinds = {kind: found.count(pattern) for kind, pattern in TENSOR_CORES.items()}
    return Code(
        case=case,
        kernel=launch.kernel,
        tile=launch.tile,
        target=target,
        threads=launch.threads,
        registers=found.registers,
        stack=found.stack,
        local=found.count("LDL|STL"),
        shared=found.shared,
        resident=held.resident(*usage),
        occupancy=round(held.occupancy(*usage), 3),
        tensor_cores=", ".join(f"{kind} {count}" for kind, count in kinds.items() if count),
        shuffles=found.count("SHFL"),
        instructions=sum(found.instructions.values()),
        loop_instructions=found.loop[0],
        loop_multiplied=found.loop[1],
        nvrtc=version(NVRTC),
    )


def codes(targets: Iterable[int] = MULTIPROCESSORS) -> list[Code]:
    """The table: each kernel once a target, under the first case that starts it."""
    rows, seen = [], set()
    for target in targets:
        for case, operator in cases(target):
            for launch in launches(operator, target):
                key = key_of(launch, target)
                if key not in seen:
                    seen.add(key)
                    rows.append(code_of(case, launch, target))
    return rows


def write(path: Path, rows: Sequence[Any]) -> None:
    """A CSV file of dataclasses, in place of what was there."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main(arguments: Sequence[str]) -> None:
    """Writes the table in place of what was there."""
    write(CODE, codes())
    print(CODE)
