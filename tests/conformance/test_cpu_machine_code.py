"""The CPU's kernels compiled for every instruction set; no such processor has to be at hand."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest

pytest.importorskip("llvmlite")

from dvdq_kernels.backends.cpu.activation import write_rotate, write_rotate_quantize
from dvdq_kernels.backends.cpu.code import F32, F64
from dvdq_kernels.backends.cpu.compilation import Write, intermediate, optimized
from dvdq_kernels.backends.cpu.floats import ELEMENTS
from dvdq_kernels.backends.cpu.instruction_sets import (
    ALL,
    AVX2,
    AVX512_VNNI,
    AVX_VNNI,
    NEON,
    PORTABLE,
    InstructionSet,
    runs_here,
)
from dvdq_kernels.backends.cpu.product import write_product
from dvdq_kernels.backends.cpu.weight_only import write_dequantize, write_few_tokens

ELSEWHERE = [instructions for instructions in ALL if not runs_here(instructions)]
"""Of the others conformance runs the kernels, or of a wider one."""
MULTIPLIED_WITH = {
    AVX512_VNNI: r"vpdpbusd\s.*%zmm",
    AVX_VNNI: r"\{vex\}\s*vpdpbusd\s.*%ymm",
    AVX2: r"vpmaddubsw\s.*%ymm",
    NEON: r"sdot\s+v",
    PORTABLE: None,
}
CALLED = re.compile(r"^\s*(?:callq|bl)[ \t]+(\w+)", re.MULTILINE)
AHEAD = re.compile(r"\b(?:prefetcht0|prfm)\s")
OTHERS = r"vpdpbusd|vpmaddubsw|\bsdot\b"
WIDER = {AVX512_VNNI: None, AVX_VNNI: r"%zmm|%ymm(1[6-9]|[23]\d)|%k\d", NEON: r"\bz\d+\."}
WIDER[AVX2] = WIDER[AVX_VNNI]
WIDER[PORTABLE] = r"%[yz]mm|\bz\d+\."


def assembly(write: Write, instructions: InstructionSet, **constants: Any) -> str:
    module, machine = optimized(intermediate(write, instructions, **constants), instructions)
    return str(machine.emit_assembly(module))


@pytest.mark.parametrize("instructions", ALL, ids=lambda instructions: instructions.name)
def test_a_product_is_made_of_the_instructions_that_it_is_for(instructions: InstructionSet) -> None:
    limit = instructions.steps(8)
    code = assembly(write_product, instructions, limit=limit, stored=4, grouped=False, output=F32, bias=F32)
    wanted, wider = MULTIPLIED_WITH[instructions], WIDER[instructions]
    steps = len(re.findall(wanted, code)) if wanted else 0
    # Eight steps without a loop, of a whole tile.
    assert steps >= (8 * instructions.tile[0] * instructions.tile[1] if wanted else 0)
    assert len(re.findall(OTHERS, code)) == steps
    assert wider is None or re.search(wider, code) is None
    assert AHEAD.search(code)
    called = set(CALLED.findall(code))
    # The edge of a tile is copied; without fused multiply-adds in the processor a function stands for them.
    assert called <= {"memcpy", *(("fmaf", "fmaf32") if instructions is PORTABLE else ())}


@pytest.mark.parametrize("instructions", ALL, ids=lambda instructions: instructions.name)
def test_weights_that_few_tokens_read_are_asked_for_ahead(instructions: InstructionSet) -> None:
    assert AHEAD.search(assembly(write_few_tokens, instructions, tokens=1, stored=4, element=F32, bias=F32))


@pytest.mark.parametrize("instructions", ELSEWHERE, ids=lambda instructions: instructions.name)
def test_every_product_compiles(instructions: InstructionSet) -> None:
    """Of all constants that a kernel has; a small tile takes a fraction of the time."""
    small = replace(instructions, tile=(2, 2 if instructions.lanes == 4 else 1))
    kinds = cycle([ELEMENTS[dtype] for dtype in sorted(instructions.dtypes, key=str)])
    for stored in (4, 8):
        for grouped in (False, True):
            for limit in {instructions.steps(4), instructions.steps(8)}:
                constants = {"limit": limit, "stored": stored, "grouped": grouped}
                assembly(write_product, small, **constants, output=next(kinds), bias=next(kinds))


@pytest.mark.parametrize("instructions", ELSEWHERE, ids=lambda instructions: instructions.name)
def test_every_other_kernel_compiles(instructions: InstructionSet) -> None:
    """None calls a function for what the processor has an instruction for, such as to round or to convert float16."""
    kinds = [ELEMENTS[dtype] for dtype in sorted(instructions.dtypes, key=str)]
    rotations = ((256, 1), (8, 1), (3072, 12), (140, 140), (8960, 140))
    kernels: list[tuple[Write, dict[str, Any]]] = [
        (write_rotate, {"element": F64, "work": F64, "size": 24, "core": 12}),
        (write_rotate_quantize, {"element": F32, "size": 0, "core": 0, "signed": True}),
    ]
    for element, (size, core) in zip(cycle(kinds), rotations, strict=False):
        kernels.append((write_rotate_quantize, {"element": element, "size": size, "core": core, "signed": False}))
    kernels += [(write_rotate, {"element": kind, "work": F32, "size": 1536, "core": 12}) for kind in kinds]
    for stored in (4, 8):
        kernels.append((write_dequantize, {"stored": stored}))
        kernels += [
            (write_few_tokens, {"tokens": tokens, "stored": stored, "element": kind, "bias": F32})
            for tokens, kind in zip((1, 4), kinds, strict=False)
        ]
    for write, constants in kernels:
        code = assembly(write, instructions, **constants)
        assert set(CALLED.findall(code)) <= {"memcpy"}, f"{write.__name__} {constants} calls a function"
        wider = WIDER[instructions]
        assert wider is None or re.search(wider, code) is None
