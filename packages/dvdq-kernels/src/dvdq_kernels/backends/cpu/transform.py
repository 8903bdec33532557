"""The fast Hadamard transform of a row, as it is written for an instruction set.

``H_m ⊗ H_{2^k}`` of a row in the cache: the 2^k by butterflies, the levels inside a register and the next three while
values are there, then three levels a pass; at last H_m, whose rows lie 2^k apart, as a small product.
"""

from __future__ import annotations

from collections.abc import Callable

from dvdq_kernels.backends.cpu.code import Array, Code, Value, Variable, vector

_RADIX = 8
"""Vectors that pass through butterflies together: three levels."""

Load = Callable[[Value, int], Value]
"""What stands at a place of the row, in as many lanes."""


def write_transform(
    code: Code, load: Load, factors: Array, matrix: Array, row: Array, spare: Array, size: int, core: int, lanes: int
) -> Array:
    """``x diag(factors) (H_m ⊗ H_{2^k})`` of ``size = core · 2^k`` values, left in ``row`` or ``spare``.

    Args:
        code: the function that it is written into.
        load: reads x.
        factors: the signs of the rotation over ``√size``, ``[size]``.
        matrix: ``H_m``, ``[core, core]``; not read where ``core`` is 1.
        row: memory for ``size`` values.
        spare: memory for as many.
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
    _multiply(code, matrix, row, spare, core, inner, lanes)
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


def _multiply(code: Code, matrix: Array, row: Array, spare: Array, core: int, inner: int, lanes: int) -> None:
    """``spare[i] = Σ_j H[j, i] row[j]``: four outputs of a few columns at a time, since 4 divides every order m."""
    columns = min(2, inner // lanes)
    zeros = code.constant(vector(row.element, lanes), 0)
    with code.loop(0, inner, columns * lanes) as column, code.loop(0, core, 4) as i:
        sums = [[Variable(code, zeros) for _ in range(columns)] for _ in range(4)]
        with code.loop(0, core) as j:
            values = [row.load(j * inner + column + c * lanes, lanes) for c in range(columns)]
            for r in range(4):
                sign = matrix.load(j * core + i + r).splat(lanes)
                for c, value in enumerate(values):
                    sums[r][c].value = code.fma(value, sign, sums[r][c].value)
        for r in range(4):
            for c in range(columns):
                spare.store((i + r) * inner + column + c * lanes, sums[r][c].value)
