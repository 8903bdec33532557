"""What a processor does at most, measured: a loop of the dot products that the ``cpu`` backend multiplies with.

It is compiled as the backend's own kernels are. What a product does besides is left out: scales, sums of codes, nibbles
to bytes, more memory than the nearest cache. A step multiplies four nibbles with four codes in each lane.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from llvmlite import ir

from dvdq_kernels.backends.cpu.code import I8, I32, Code, Value, Variable, vector
from dvdq_kernels.backends.cpu.compilation import kernel
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet, at_hand

FOURS = 64
"""Steps over the channels of a pass, four each: two blocks of 128."""
_STRAIGHT = 8
_REGISTERS = {"x86_64": "=v,0", "aarch64": "=w,0"}


def write_dots(module: ir.Module, instructions: InstructionSet, *, limit: int | None, loads: bool) -> Code:
    """``passes`` times ``FOURS`` steps on a tile of sums, operands in registers or, as a product has them, loaded."""
    code = Code(module, "dots", {"codes": I8, "tile": I32, "out": I32}, ("first", "last", "passes"))
    (rows, columns), lanes = instructions.tile, instructions.lanes
    register = vector(I8, 4 * lanes)
    zero = code.constant(vector(I32, lanes), 0)
    sums = [[Variable(code, zero) for _ in range(columns)] for _ in range(rows)]
    codes = [code.array("codes").at(row * 4 * FOURS) for row in range(rows)]
    kept = [Variable(code, code.array("tile").load(c * lanes, lanes).bits_as(register)) for c in range(columns)]
    with code.loop(0, code.number("passes")), code.loop(0, FOURS, _STRAIGHT) as four:
        partial: list[list[Value | None]] = [[None] * columns for _ in range(rows)]
        if limit is None:
            partial = [[total.value for total in row] for row in sums]
        for i in range(_STRAIGHT):
            if loads:
                place = (four + i) * (columns * lanes)
                nibbles = [code.array("tile").load(place + c * lanes, lanes).bits_as(register) for c in range(columns)]
            else:
                nibbles = [_unknown(code, value.value, instructions) for value in kept]
            for t in range(rows):
                if loads:
                    v = codes[t].load((four + i) * 4, 4).bits_as(I32).splat(lanes).bits_as(register)
                else:
                    v = nibbles[t % columns]
                partial[t] = [instructions.step(p, n, v) for p, n in zip(partial[t], nibbles, strict=True)]
            if i + 1 < _STRAIGHT and (limit is None or (i + 1) % limit):
                continue
            for row, values in zip(sums, partial, strict=True):
                for total, value in zip(row, values, strict=True):
                    wide = instructions.widened(value)
                    total.value = wide if limit is None else total.value + wide
            partial = [[None] * columns for _ in range(rows)]
    out = code.array("out").at(code.number("first") * (rows * columns * lanes))
    for t, row in enumerate(sums):
        for c, total in enumerate(row):
            out.store((t * columns + c) * lanes, total.value)
    return code


def _unknown(code: Code, value: Value, instructions: InstructionSet) -> Value:
    """The same value, of which the compiler may no longer think that it is: else it would multiply it once."""
    where = _REGISTERS[instructions.architecture or "x86_64"]
    return Value(code, code.builder.asm(ir.FunctionType(value.type, [value.type]), "", where, [value.ir], True))


def dots(passes: int, *, loads: bool, x_bits: int = 8) -> tuple[Callable[[], None], int]:
    """A call that does them on as many threads as torch uses, and its operations."""
    instructions = at_hand()
    run = kernel(write_dots, instructions, limit=instructions.steps(x_bits), loads=loads)
    rows, columns = instructions.tile
    threads = torch.get_num_threads()
    codes = torch.randint(-8, 8, (rows, 4 * FOURS), dtype=torch.int8)
    tile = torch.randint(0, 16, (FOURS, columns, instructions.width), dtype=torch.int8)
    out = torch.empty(threads, rows * columns * instructions.lanes, dtype=torch.int32)

    def call() -> None:
        run((codes.data_ptr(), tile.data_ptr(), out.data_ptr(), passes), threads, 1, 1)

    return call, threads * passes * FOURS * rows * columns * 8 * instructions.lanes
