"""The clip factor that suits a Gaussian block: rotated activations are close to Gaussian, so no data is needed.

A block of n independent standard normal values with ``M = max|x|`` gets the step ``s = c M / (2^(b-1) - 1)`` and codes
clamped to ``-2^(b-1) … 2^(b-1) - 1``. Given M = m, one value is ±m and the other n - 1 are normal, truncated to
``(-m, m)``; M has the distribution function ``(2 Φ(m) - 1)^n``. So the expected squared error per value is an integral
over m of sums of closed forms, and :func:`best_clip` is the c that makes it least. A signed scale is
``s = -c x_max / 2^(b-1)`` for the value ``x_max`` of magnitude M, which then always has the code ``-2^(b-1)``.

``python -m dvdq_reference.oracle.gaussian`` writes :mod:`dvdq_reference.spec.clip_table`, which everything else reads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri

from dvdq_reference.oracle.inputs import Floats
from dvdq_reference.spec.bits import MAX_BITS, MIN_BITS, check_bits, signed_range
from dvdq_reference.spec.errors import DvdqError

DECIMALS = 4
"""Places to which the table is rounded: a factor that is off by 1e-4 changes the error by less than 1e-6 of itself."""
BLOCKS = tuple(sorted({2**k for k in range(17)} | {3 * 2**k for k in range(15)} | {5120, 8960, 13824, 15360}))
"""Lengths in the table: 1 to 65536 at half octaves, and the widths of real layers."""

_NODES = 48
_GRID = np.linspace(0.1, 1.0, 181)


def clip_error(c: ArrayLike, bits: int, block: int, *, signed: bool = False) -> Floats:
    """Expected squared error per value of a Gaussian block of variance 1 clipped at each c, float64 ``[len(c)]``.

    The scale is ``c max|x| / (2^(b-1) - 1)``, or ``signed``.

    The integral over m is taken over its distribution function, by Gauss-Legendre at 48 nodes.

    Raises:
        DvdqError: for a width that is not 2 to 8, or a block of less than 1.
    """
    check_bits("clip_error", bits)
    if block < 1:
        raise DvdqError("clip_error", where="block", expected="at least 1", got=block)
    low, high = signed_range(bits)
    levels = np.arange(low, high + 1)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    largest = ndtri((1 + ((nodes + 1) / 2) ** (1 / block)) / 2)
    step = np.atleast_1d(np.asarray(c, np.float64))[:, None] * largest / (-low if signed else high)
    # Cell j holds the values that take code levels[j]; the outer cells end at ∓m, where the truncated density does.
    ends = np.broadcast_to(largest[:, None], (*step.shape, 1))
    edges = np.concatenate([-ends, step[:, :, None] * (levels[1:] - 0.5), ends], axis=2)
    edges = np.clip(edges, -ends, ends)
    centres = step[:, :, None] * levels
    inside = _second_moment(edges[:, :, :-1], edges[:, :, 1:], centres).sum(axis=2) / (2 * ndtr(largest) - 1)
    top = np.square(largest - step * np.minimum(np.rint(largest / step), high))
    bottom = np.square(largest + step * np.maximum(np.rint(-largest / step), low))
    # Mirrored, the largest value of a signed block is the negative one.
    given_largest = ((block - 1) * inside + (bottom if signed else (top + bottom) / 2)) / block
    return np.asarray(given_largest @ (weights / 2), np.float64)


def best_clip(bits: int, block: int, *, signed: bool = False) -> float:
    """The c in [0.1, 1] of least :func:`clip_error`, e.g. 0.868 for 64 values at 4 bits and 0.644 for 3072.

    A grid of c finds the lowest valley (short blocks have two: the largest value itself likes to fall on a code),
    SciPy's bounded minimisation its floor. A single value is its own maximum and is exact at 1.
    """
    if block == 1:
        return 1.0
    at = int(clip_error(_GRID, bits, block, signed=signed).argmin())
    bounds = (_GRID[max(at - 1, 0)], _GRID[min(at + 1, _GRID.size - 1)])
    found = minimize_scalar(
        lambda c: float(clip_error(c, bits, block, signed=signed)[0]),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(found.x)


def table_source() -> str:
    """The text of :mod:`dvdq_reference.spec.clip_table`."""
    return format_table(*(_factors(signed=signed) for signed in (False, True)))


def _factors(*, signed: bool) -> dict[int, tuple[float, ...]]:
    return {
        bits: tuple(round(best_clip(bits, block, signed=signed), DECIMALS) for block in BLOCKS)
        for bits in range(MIN_BITS, MAX_BITS + 1)
    }


def format_table(factors: dict[int, tuple[float, ...]], signed: dict[int, tuple[float, ...]]) -> str:
    """The source of a module with ``BLOCKS``, ``FACTORS`` and ``SIGNED_FACTORS``, twelve numbers a line."""

    def rows(numbers: tuple[float, ...], indent: str) -> list[str]:
        return [f"{indent}{', '.join(map(str, numbers[at : at + 12]))}," for at in range(0, len(numbers), 12)]

    lines = [
        '"""Clip factors of Gaussian blocks. Written by ``python -m dvdq_reference.oracle.gaussian``, not by hand."""',
        "",
        "# fmt: off",
        "BLOCKS = (",
        *rows(BLOCKS, "    "),
        ")",
        '"""Lengths of a block."""',
    ]
    for name, table, what in (("FACTORS", factors, "c"), ("SIGNED_FACTORS", signed, "c of a scale of either sign")):
        lines.append(f"{name} = {{")
        for bits, row in table.items():
            lines += [f"    {bits}: (", *rows(row, "        "), "    ),"]
        lines += ["}", f'"""For each width in bits, {what} for each of ``BLOCKS``."""']
    return "\n".join([*lines, ""])


def _second_moment(low: Floats, high: Floats, centre: Floats) -> Floats:
    """``∫ (x - a)² φ(x) dx`` from low to high for the centre a, by the antiderivative ``(1 + a²) Φ - (x - 2a) φ``."""

    def upto(x: Floats) -> Floats:
        density = np.exp(-np.square(x) / 2) / np.sqrt(2 * np.pi)
        return np.asarray((1 + centre**2) * ndtr(x) - (x - 2 * centre) * density, np.float64)

    return upto(high) - upto(low)


if __name__ == "__main__":
    (Path(__file__).parents[1] / "spec" / "clip_table.py").write_text(table_source(), encoding="utf-8")
