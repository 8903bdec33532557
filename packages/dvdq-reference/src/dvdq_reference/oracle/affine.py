"""The affine grid of a weight (Eq. 1-2) and its min-max choice.

``q = clamp(round(W / Δ) + z, 0, 2^b - 1)`` and ``Ŵ = Δ (q - z)``, rounding half to even. One grid (Δ, z) serves a
group of consecutive input channels of one row; without a group size, the whole row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.inputs import FLOAT32_TINY, Floats, Ints, code_matrix, matrix
from dvdq_reference.spec.bits import check_bits, code_offset, unsigned_range
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts

MAX_ZERO = 2**15 - 1
"""Largest magnitude of a min-max zero-point, which is stored as int16."""


@dataclass(frozen=True)
class Grid:
    """Scales and zero-points of a weight: a ``[12, 256]`` weight in groups of 64 has ``[12, 4]`` of each.

    Attributes:
        scale: Δ > 0, float64 ``[out, groups]``.
        zero: z, int64 ``[out, groups]``.
        bits: b, the width of the codes.
        least: the smallest code, 0, or 1 where there are as many on either side of zero.
    """

    scale: Floats
    zero: Ints
    bits: int
    least: int = 0

    def __post_init__(self) -> None:
        check_bits("grid", self.bits)
        if self.scale.ndim != 2 or self.scale.shape != self.zero.shape:
            got = f"scale {self.scale.shape}, zero {self.zero.shape}"
            raise DvdqError("grid", expected="scale and zero of one shape [out, groups]", got=got)
        good = np.isfinite(self.scale) & (self.scale > 0)
        if not good.all():
            row = int(np.argmin(good.all(axis=1)))
            scale = float(self.scale[row][~good[row]][0])
            raise DvdqError("grid", where=f"row {row}", expected="a scale > 0", got=scale)

    def per_channel(self, operation: str, shape: tuple[int, int]) -> tuple[Floats, Ints]:
        """Δ and z of every element of a ``shape = [out, in]`` weight."""
        rows, groups = self.scale.shape
        if shape[0] != rows or shape[1] % groups:
            expected = f"{rows} rows of a multiple of {groups} channels, as the grid has"
            raise DvdqError(operation, expected=expected, got=f"shape {shape}")
        size = shape[1] // groups
        return np.repeat(self.scale, size, axis=1), np.repeat(self.zero, size, axis=1)


def grid_of_range(low: Floats, high: Floats, bits: int) -> tuple[Floats, Ints]:
    """Elementwise, the grid from ``low`` to ``high``: ``Δ = (high - low) / (2^b - 1)`` and ``z = -round(low / Δ)``.

    With ``m = max(|low|, |high|)``, and everything in float64:

    - ``high > low``: Δ is raised to ``m / (2^15 - 1)`` if it is less, so that z fits int16 for values that lie close
      together but far from zero, and to the smallest normal float32, so that it stays positive where it is stored;
    - ``high = low = c ≠ 0``: ``Δ = |c|`` (raised likewise), z = 0 if c > 0 and 1 if c < 0, which represents c exactly;
    - ``high = low = 0``: Δ = 1, z = 0.
    """
    largest = np.maximum(np.abs(low), np.abs(high))
    scale = np.maximum((high - low) / (2**bits - 1), largest / MAX_ZERO)
    scale = np.where(low == high, largest, scale)
    scale = np.where(largest == 0.0, 1.0, np.maximum(scale, FLOAT32_TINY))
    zero = np.where(low == high, low < 0, -np.rint(low / scale))
    return scale, zero.astype(np.int64)


def minmax_grid(weight: ArrayLike, bits: int = 4, *, group_size: int | None = None, symmetric: bool = False) -> Grid:
    """The min-max grid of each row or group: :func:`grid_of_range` of its smallest and largest value.

    ``symmetric`` takes ``Δ = max|W| / (2^(b-1) - 1)``, at least the smallest normal float32 (1 for zeros), and fixes
    ``z = 2^(b-1)``.

    Args:
        weight: W, ``[out, in]``.
        bits: b, 2 to 8.
        group_size: input channels that share a grid; None is the whole row.
        symmetric: whether the zero-point is fixed.

    Raises:
        DvdqError: for another shape, NaN, Inf or beyond float32 (naming the row), or a size that does not divide.
    """
    check_bits("minmax_grid", bits)
    weight = matrix("minmax_grid", weight)
    groups = in_groups("minmax_grid", weight, group_size)
    if not symmetric:
        return Grid(*grid_of_range(groups.min(axis=2), groups.max(axis=2), bits), bits)
    largest = np.abs(groups).max(axis=2)
    scale = np.where(largest == 0.0, 1.0, np.maximum(largest / (2 ** (bits - 1) - 1), FLOAT32_TINY))
    return Grid(scale, np.full(scale.shape, code_offset(bits), np.int64), bits)


def quantize(weight: ArrayLike, grid: Grid) -> Ints:
    """Eq. 1: ``q = clamp(round(W / Δ) + z, least, 2^b - 1)``, int64 ``[out, in]``, rounding half to even.

    Raises:
        DvdqError: for a bad weight (naming the row) or one that the grid does not fit.
    """
    weight = matrix("quantize", weight)
    scale, zero = grid.per_channel("quantize", weight.shape)
    return np.clip(np.rint(weight / scale) + zero, grid.least, unsigned_range(grid.bits)[1]).astype(np.int64)


def dequantize(codes: ArrayLike, grid: Grid) -> Floats:
    """Eq. 2: ``Ŵ = Δ (q - z)``, float64 ``[out, in]``.

    Raises:
        DvdqError: for codes outside ``0 … 2^b - 1`` (naming the row) or a shape that the grid does not fit.
    """
    codes = code_matrix("dequantize", codes, *unsigned_range(grid.bits))
    scale, zero = grid.per_channel("dequantize", codes.shape)
    return scale * (codes - zero)


def in_groups(operation: str, weight: Floats, group_size: int | None) -> Floats:
    """``[out, in]`` as ``[out, groups, group_size]``."""
    out_features, in_features = weight.shape
    groups = count_parts(operation, in_features, group_size)
    return weight.reshape(out_features, groups, in_features // groups)
