"""The clip factor that suits a Gaussian block: rotated activations are close to Gaussian, so no data is needed.

A block of n independent standard normal values with ``M = max|x|`` gets the step ``s = c M / (2^(b-1) - 1)`` and codes
clamped to ``-2^(b-1) … 2^(b-1) - 1``. Given M = m, one value is ±m and the other n - 1 are normal, truncated to
``(-m, m)``; M has the density ``2 n φ(m) (2 Φ(m) - 1)^(n-1)``. So the expected squared error per value is an integral
over m of sums of closed forms, and :func:`clip_factor` is the c that makes it least.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import ndtri
from scipy.stats import norm

from dvdq_reference.oracle.inputs import Floats
from dvdq_reference.spec.bits import check_bits, signed_range
from dvdq_reference.spec.errors import DvdqError

_NODES = 48
"""Gauss-Legendre nodes for the integral over M; doubling them moves no error by more than 1e-6 of itself."""
_LEAST = 0.3


def clip_error(c: ArrayLike, bits: int, block: int) -> Floats:
    """Expected squared error per value, relative to the variance 1, of a Gaussian block clipped at c, for every c."""
    levels = np.arange(signed_range(bits)[0], signed_range(bits)[1] + 1)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # The integral over m as one over its distribution function P(M <= m) = (2 Φ(m) - 1)^n, which runs from 0 to 1.
    largest = ndtri((1 + ((nodes + 1) / 2) ** (1 / block)) / 2)
    step = np.atleast_1d(np.asarray(c, np.float64))[:, None] * largest / levels[-1]
    # Cell j holds the values that take code levels[j]; the outer cells end at ∓m, where the truncated density does.
    inner = step[:, :, None] * (levels[1:] - 0.5)
    ends = np.broadcast_to(largest[None, :, None], (*step.shape, 1))
    edges = np.clip(np.concatenate([-ends, inner, ends], axis=2), -ends, ends)
    centres = step[:, :, None] * levels
    inside = _second_moment(edges[:, :, :-1], edges[:, :, 1:], centres).sum(axis=2) / (2 * norm.cdf(largest) - 1)
    top = np.square(largest - step * np.minimum(np.rint(largest / step), levels[-1]))
    bottom = np.square(largest + step * np.maximum(np.rint(-largest / step), levels[0]))
    given_largest = ((block - 1) * inside + (top + bottom) / 2) / block
    return np.asarray(given_largest @ (weights / 2))


@cache
def clip_factor(bits: int, block: int) -> float:
    """The c in (0, 1] of least :func:`clip_error`: 0.87 for 64 values at 4 bits, 0.66 for 3072.

    A grid of c finds the best valley (the error has a ripple where the largest value crosses a rounding tie), SciPy's
    bounded minimisation its floor.

    Raises:
        DvdqError: for a width that is not 2 to 8 or a block of less than 2.
    """
    check_bits("clip_factor", bits)
    if block < 1:
        raise DvdqError("clip_factor", where="block", expected="at least 1", got=block)
    if block == 1:
        return 1.0
    grid = np.linspace(_LEAST, 1.0, 141)
    best = int(clip_error(grid, bits, block).argmin())
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    found = minimize_scalar(lambda c: float(clip_error(c, bits, block)[0]), bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(found.x)


def _second_moment(low: Floats, high: Floats, centre: Floats) -> Floats:
    """``∫ (x - centre)² φ(x) dx`` from low to high, from the antiderivative ``(1 + c²) Φ(x) - (x - 2 c) φ(x)``."""

    def upto(x: Floats) -> Floats:
        return np.asarray((1 + centre**2) * norm.cdf(x) - (x - 2 * centre) * norm.pdf(x))

    return upto(high) - upto(low)
