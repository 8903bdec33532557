"""The fast Hadamard transform of a row, as it is written for an instruction set.

``H_m ⊗ H_{2^k}`` of a row in the cache: the 2^k by butterflies, the levels inside a register and the next three while
values are there, then three levels a pass; at last H_m, whose rows lie 2^k apart. Its entries are signs: of four inputs
each, all sixteen sums ``± a ± b ± c ± d`` are made once, and an output adds one of every four.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dvdq_kernels.backends.cpu.code import I64, Array, Code, Value, Variable, vector
from dvdq_kernels.rotation import paley

_RADIX = 8
"""Vectors that pass through butterflies together: three levels."""
_INPUTS = 4
"""Of H_m, whose sums of either sign are made once; 4 divides every order m but 1."""
_SUMS = 1 << _INPUTS

Load = Callable[[Value, int], Value]
"""What stands at a place of the row, in as many lanes."""


def choices(core: int) -> NDArray[np.int32]:
    """Which sum of four inputs an output of ``H_m`` adds, ``[m / 4, m]``: bit r is set where ``H[4g + r, i]`` is 1."""
    if core == 1:
        return np.zeros((0, 1), np.int32)
    signs = (paley(core) > 0).reshape(core // _INPUTS, _INPUTS, core)
    chosen: NDArray[np.int32] = (signs << np.arange(_INPUTS)[:, None]).sum(axis=1, dtype=np.int32)
    return chosen


def scratch_of(channels: int, core: int, lanes: int) -> int:
    """Values that :func:`write_transform` needs: a row, a spare one, and sums of either sign in a register each."""
    return 2 * channels + core // _INPUTS * _SUMS * lanes


def write_transform(
    code: Code,
    load: Load,
    factors: Array,
    choices: Array,
    row: Array,
    spare: Array,
    sums: Array,
    size: int,
    core: int,
    lanes: int,
) -> Array:
    """``x diag(factors) (H_m ⊗ H_{2^k})`` of ``size = core · 2^k`` values, left in ``row`` or ``spare``.

    Args:
        code: the function that it is written into.
        load: reads x.
        factors: the signs of the rotation over ``√size``, ``[size]``.
        choices: what :func:`choices` gives; not read where ``core`` is 1.
        row: memory for ``size`` values.
        spare: memory for as many.
        sums: memory for ``4 core`` registers.
        size: of the transform.
        core: m.
        lanes: of a register.
    """
    inner = size // core
    lanes = min(lanes, inner)
    together = min(_RADIX, inner // lanes)
    with code.loop(0, size, lanes * together) as start:
        places = [start + i * lanes for i in range(together)]
        values = [_inside(load(place, lanes) * factors.load(place, lanes)) for place in places]
        for place, value in zip(places, _across(values), strict=True):
            row.store(place, value)
    stride = lanes * together
    while stride < inner:
        radix = min(_RADIX, inner // stride)
        with code.loop(0, size, stride * radix) as start, code.loop(start, start + stride, lanes) as place:
            values = [row.load(place + i * stride, lanes) for i in range(radix)]
            for i, value in enumerate(_across(values)):
                row.store(place + i * stride, value)
        stride *= radix
    if core == 1:
        return row
    _multiply(code, choices, row, spare, sums, core, inner, lanes)
    return spare


def _inside(value: Value) -> Value:
    """All levels of butterflies between the lanes of a register."""
    distance = 1
    while distance < value.lanes:
        other = value.shuffle([i ^ distance for i in range(value.lanes)])
        signs = value.code.lanes(value.type.element, [-1.0 if i & distance else 1.0 for i in range(value.lanes)])
        value = value.code.fma(value, signs, other)
        distance *= 2
    return value


def _across(values: list[Value]) -> list[Value]:
    """All levels of butterflies between registers."""
    distance = 1
    while distance < len(values):
        values = [
            values[i - distance] - value if i & distance else value + values[i + distance]
            for i, value in enumerate(values)
        ]
        distance *= 2
    return values


def _multiply(
    code: Code, choices: Array, row: Array, spare: Array, sums: Array, core: int, inner: int, lanes: int
) -> None:
    """``spare[i] = Σ_j H[j, i] row[j]``, four outputs at a time."""
    groups, outputs = core // _INPUTS, 4
    zeros = code.constant(vector(row.element, lanes), 0)
    with code.loop(0, inner, lanes) as column:
        with code.loop(0, groups) as group:
            inputs = [row.load((group * _INPUTS + r) * inner + column, lanes) for r in range(_INPUTS)]
            for n, either in enumerate(_either_sign(inputs, zeros)):
                sums.store((group * _SUMS + n) * lanes, either)
        with code.loop(0, core, outputs) as i:
            totals = [Variable(code, zeros) for _ in range(outputs)]
            with code.loop(0, groups) as group:
                for r, total in enumerate(totals):
                    choice = choices.load(group * core + i + r).to(I64)
                    total += sums.load((group * _SUMS + choice) * lanes, lanes)
            for r, total in enumerate(totals):
                spare.store((i + r) * inner + column, total.value)


def _either_sign(values: list[Value], zeros: Value) -> list[Value]:
    """``Σ ± v`` for all signs: in the i-th, value r is added where bit r of i is set, and subtracted elsewhere."""
    a, b, *rest = values
    pairs = [zeros - (a + b), a - b, b - a, a + b]
    return pairs if not rest else [low + high for high in _either_sign(rest, zeros) for low in pairs]
