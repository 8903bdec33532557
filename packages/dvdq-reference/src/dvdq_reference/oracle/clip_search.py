"""QuaRot's clip search: the symmetric min-max grid of each row or group, shrunk until its error is least.

It tries the scales ``p Δ`` for p = 1.00, 0.99, … 0.21, each at least the smallest normal float32, and keeps the first
of least ``Σ |W - Ŵ|^2.4``. The power, above 2, spares large weights. QuaRot has one grid a row; groups are ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, dequantize, minmax_grid, quantize
from dvdq_reference.oracle.inputs import FLOAT32_TINY, Floats, matrix

STEPS = 80
"""Grids that are tried, each a hundredth of max|W| shorter than the one before."""
NORM = 2.4
"""The power of the error that is made least."""


def search_clip(weight: ArrayLike, bits: int = 4, *, group_size: int | None = None) -> Grid:
    """The first grid of least error among those of all shrink steps.

    Args:
        weight: W, ``[out, in]``.
        bits: b, 2 to 8.
        group_size: input channels that share a grid; None is the whole row.

    Raises:
        DvdqError: for a bad weight (naming the row) or a size that does not divide.
    """
    start = minmax_grid(weight, bits, group_size=group_size, symmetric=True)
    best_scale, best_error = start.scale, clip_error(weight, start)
    for step in range(1, STEPS):
        grid = shrunk(start, step)
        error = clip_error(weight, grid)
        best_scale = np.where(error < best_error, grid.scale, best_scale)
        best_error = np.minimum(error, best_error)
    return Grid(best_scale, start.zero, bits)


def shrunk(start: Grid, step: ArrayLike) -> Grid:
    """``start`` with the scale ``(1 - step / 100) Δ``; ``step`` is one number or ``[out, groups]``."""
    scale = np.maximum((1 - np.asarray(step) / 100) * start.scale, FLOAT32_TINY)
    return Grid(scale, start.zero, start.bits)


def clip_error(weight: ArrayLike, grid: Grid) -> Floats:
    """``Σ |W - Ŵ|^2.4`` of each row or group, float64 ``[out, groups]``."""
    weight = matrix("clip_error", weight)
    difference = np.abs(weight - dequantize(quantize(weight, grid), grid))
    return np.asarray((difference**NORM).reshape(*grid.scale.shape, -1).sum(axis=2))
