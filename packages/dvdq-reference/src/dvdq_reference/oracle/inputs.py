"""What every function of the oracle asks of its arrays, and the errors when they are otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dvdq_reference.spec.errors import DvdqError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)
"""The smallest normal float32: scales are stored as float32 and must not become zero there."""


def matrix(operation: str, values: ArrayLike, row_name: str = "row") -> Floats:
    """``values`` as a non-empty float64 matrix whose magnitudes a float32 can hold.

    Raises:
        DvdqError: for another rank, an empty array, non-numbers, and NaN, Inf or anything beyond the largest float32,
            naming the first ``row_name`` at fault.
    """
    array = _numeric(operation, values)
    if array.ndim != 2 or array.size == 0:
        raise DvdqError(operation, expected="a non-empty matrix", got=f"shape {array.shape}")
    good = np.abs(array) <= FLOAT32_MAX
    if not good.all():
        row = int(np.argmin(good.all(axis=1)))
        raise DvdqError(
            operation,
            where=f"{row_name} {row}",
            expected="finite values that float32 can hold",
            got=float(array[row][~good[row]][0]),
        )
    return array


def vector(operation: str, values: ArrayLike, length: int, name: str) -> Floats:
    """``values`` as ``length`` finite float64 numbers."""
    array = _numeric(operation, values)
    if array.shape != (length,):
        raise DvdqError(operation, where=name, expected=f"shape ({length},)", got=f"shape {array.shape}")
    good = np.abs(array) <= FLOAT32_MAX
    if not good.all():
        index = int(np.argmin(good))
        raise DvdqError(operation, where=f"{name} {index}", expected="a finite number", got=float(array[index]))
    return array


def code_matrix(operation: str, values: ArrayLike, low: int, high: int, row_name: str = "row") -> Ints:
    """``values`` as a non-empty int64 matrix of integers from ``low`` to ``high``."""
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
        got = f"shape {array.shape}, dtype {array.dtype}"
        raise DvdqError(operation, expected="a non-empty matrix of integers", got=got)
    good = (array >= low) & (array <= high)
    if not good.all():
        row = int(np.argmin(good.all(axis=1)))
        got = str(array[row][~good[row]][0])
        raise DvdqError(operation, where=f"{row_name} {row}", expected=f"codes from {low} to {high}", got=got)
    return array.astype(np.int64)


def _numeric(operation: str, values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise DvdqError(operation, expected="real numbers", got=f"dtype {array.dtype}")
    return array.astype(np.float64)
