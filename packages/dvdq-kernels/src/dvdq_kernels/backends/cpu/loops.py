"""The compiled loops: grids, their refinement (Algorithm 1), codes. All in one file, as the compiled code that numba
keeps on disk is renewed when the file of the function called changes, and not when that of one called by it does.

Refinement is exact and works on a sorted row. A grid's codes are monotonic in the weight: they are a staircase, known
by the counts ``n_j`` of values with a code of at most j. With prefix sums P of the row, its length m and
``j = 0 … 2^b - 2``,

``Σ q = Σ_j (m - n_j)``, ``Σ q² = Σ_j (2j + 1)(m - n_j)``, ``Σ q w = Σ_j (P_m - P[n_j])``,

so that a round of refinement costs ``2^b`` binary searches, which run side by side, instead of a pass over the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Values = NDArray[np.floating[Any]]

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_LARGEST_ZERO = 2**15 - 1


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """``function``, compiled when first called; it runs without the interpreter lock, and 0/0 gives NaN."""
    try:
        loop = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        # Neither this folder nor the user's cache can be written to: every process compiles anew.
        loop = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Callable[_Arguments, _Result], loop)


@compiled
def refine_rows(
    ordered: _Values,
    levels: int,
    num_bounds: int,
    tolerance: float,
    max_rounds: int,
    symmetric: bool,
    scale: NDArray[np.float32],
    zero: NDArray[np.int16],
) -> None:
    """The grids of BGR into ``scale`` and ``zero``, of rows ``[rows, width]`` in ascending order, or of magnitudes."""
    for row in range(ordered.shape[0]):
        if symmetric:
            scale[row] = _refine_scale(ordered[row], levels, num_bounds, tolerance, max_rounds)
            zero[row] = (levels + 1) // 2
        else:
            scale[row], zero[row] = _refine(ordered[row], levels, num_bounds, tolerance, max_rounds)


@compiled
def span_rows(
    parts: _Values, levels: int, symmetric: bool, scale: NDArray[np.float32], zero: NDArray[np.int16]
) -> None:
    """The grids of each row's extremes into ``scale`` and ``zero``."""
    for row in range(parts.shape[0]):
        low, high = np.float64(parts[row].min()), np.float64(parts[row].max())
        if symmetric:
            scale[row], zero[row] = _symmetric_grid(max(abs(low), abs(high)), levels)
        else:
            scale[row], zero[row] = _grid_of_range(low, high, levels)


@compiled
def encode_rows(
    parts: _Values,
    scale: NDArray[np.float32],
    zero: NDArray[np.int16],
    least: int,
    levels: int,
    packed: bool,
    codes: NDArray[np.uint8],
) -> None:
    """``q = clamp(round(w/Δ) + z, least, 2^b - 1)``, half to even, divided in float64; two a byte if ``packed``."""
    rows, width = parts.shape
    single = np.empty(rows * width, np.uint8) if packed else codes
    for row in range(rows):
        step, offset = np.float64(scale[row]), np.float64(zero[row])
        for k in range(width):
            code = np.rint(parts[row, k] / step) + offset
            single[row * width + k] = min(max(code, np.float64(least)), np.float64(levels))
    if packed:
        for k in range(codes.size):
            codes[k] = single[2 * k] | (single[2 * k + 1] << 4)


@compiled
def _grid_of_range(low: float, high: float, levels: int) -> tuple[float, float]:
    """``Δ = (high - low)/levels``, ``z = -round(low/Δ)``.

    A constant range c has Δ = |c| and z = 0 or 1, a zero one Δ = 1 and z = 0, so that both decode exactly. Δ is at
    least ``max(|low|, |high|)/(2^15 - 1)``, so that z fits 16 bits, and at least the smallest normal float32.
    """
    largest = max(abs(low), abs(high))
    if largest == 0:
        return 1.0, 0.0
    if low == high:
        return max(largest, _SMALLEST_SCALE), 1.0 if low < 0 else 0.0
    scale = max((high - low) / levels, largest / _LARGEST_ZERO, _SMALLEST_SCALE)
    return scale, -np.rint(low / scale)


@compiled
def _symmetric_grid(largest: float, levels: int) -> tuple[float, float]:
    """``Δ = max|w|/(2^(b-1) - 1)``, ``z = 2^(b-1)``; Δ = 1 where all is zero."""
    offset = (levels + 1) // 2
    return 1.0 if largest == 0 else max(largest / (offset - 1), _SMALLEST_SCALE), float(offset)


@compiled
def _refine(values: _Values, levels: int, num_bounds: int, tolerance: float, max_rounds: int) -> tuple[float, float]:
    """The Δ and z of least error over all starts, the first among equals.

    Args:
        values: one row in ascending order, float32 or float64.
        levels: the largest code, ``2^b - 1``.
        num_bounds: grids to start from: those of the range cut by ``i / (2 num_bounds)`` at both ends.
        tolerance: refinement goes on while the error falls by more than this share of itself.
        max_rounds: and for no more rounds than this.
    """
    prefix, squares = _running_sums(values)
    width = values.size
    edges, position = np.empty(levels, values.dtype), np.empty(levels, np.int64)
    low, high = np.float64(values[0]), np.float64(values[-1])
    best_scale, best_zero, best_error = 1.0, 0.0, np.inf
    for i in range(num_bounds):
        cut = i / (2 * num_bounds) * (high - low)
        scale, zero = _grid_of_range(low + cut, high - cut, levels)
        dw, dd, q = _sums(values, prefix, scale, zero, edges, position)
        error = max(squares - scale * (2 * dw - scale * dd), 0.0)
        if error < best_error:
            best_scale, best_zero, best_error = scale, zero, error
        for _ in range(max_rounds):
            least_squares = dw / dd
            if least_squares >= _SMALLEST_SCALE:
                scale = least_squares
            zero = min(max(np.rint(q / width - prefix[width] / width / scale), 0.0), np.float64(levels))
            dw, dd, q = _sums(values, prefix, scale, zero, edges, position)
            refined = max(squares - scale * (2 * dw - scale * dd), 0.0)
            if not refined < error:
                break
            previous, error = error, refined
            if error < best_error:
                best_scale, best_zero, best_error = scale, zero, error
            if previous - error <= tolerance * previous:
                break
    return best_scale, best_zero


@compiled
def _refine_scale(values: _Values, levels: int, num_bounds: int, tolerance: float, max_rounds: int) -> float:
    """The Δ of least error over all starts, the first among equals; as :func:`_refine`, of a row of magnitudes.

    It starts from the largest magnitude cut by ``i / num_bounds``; codes of magnitudes are 0 to ``2^(b-1) - 1``.
    """
    prefix, squares = _running_sums(values)
    largest = (levels + 1) // 2 - 1
    edges, position = np.empty(largest, values.dtype), np.empty(largest, np.int64)
    whole, _ = _symmetric_grid(np.float64(values[-1]), levels)
    best_scale, best_error = 1.0, np.inf
    for i in range(num_bounds):
        scale = max((1 - i / num_bounds) * whole, _SMALLEST_SCALE)
        dw, dd, _ = _sums(values, prefix, scale, 0.0, edges, position)
        error = max(squares - scale * (2 * dw - scale * dd), 0.0)
        if error < best_error:
            best_scale, best_error = scale, error
        for _ in range(max_rounds):
            least_squares = dw / dd
            if least_squares >= _SMALLEST_SCALE:
                scale = least_squares
            dw, dd, _ = _sums(values, prefix, scale, 0.0, edges, position)
            refined = max(squares - scale * (2 * dw - scale * dd), 0.0)
            if not refined < error:
                break
            previous, error = error, refined
            if error < best_error:
                best_scale, best_error = scale, error
            if previous - error <= tolerance * previous:
                break
    return best_scale


@compiled
def _running_sums(values: _Values) -> tuple[NDArray[np.float64], float]:
    """``Σ_{i<k} w_i`` for each k, ``[width + 1]``, and ``Σ w²``."""
    prefix = np.empty(values.size + 1)
    prefix[0] = total = squares = 0.0
    for k in range(values.size):
        value = np.float64(values[k])
        total += value
        squares += value * value
        prefix[k + 1] = total
    return prefix, squares


@compiled
def _sums(
    values: _Values,
    prefix: NDArray[np.float64],
    scale: float,
    zero: float,
    edges: _Values,
    position: NDArray[np.int64],
) -> tuple[float, float, float]:
    """``Σ d w``, ``Σ d²`` and ``Σ q``, ``d = q - z``; ``edges`` and ``position`` are scratch, ``[2^b - 1]``."""
    width, levels = values.size, edges.size
    _find_edges(scale, zero, edges)
    position[:] = 0
    left = width
    while left > 1:
        half = left >> 1
        for j in range(levels):
            position[j] += half if values[position[j] + half - 1] < edges[j] else 0
        left -= half
    total = prefix[width]
    q, qq, qw = 0, 0, 0.0
    for j in range(levels):
        count = position[j] + (1 if values[position[j]] < edges[j] else 0)
        q += width - count
        qq += (2 * j + 1) * (width - count)
        qw += total - prefix[count]
    return qw - zero * total, qq - zero * (2.0 * q - zero * width), float(q)


@compiled
def _find_edges(scale: float, zero: float, edges: _Values) -> None:
    """The least value with a code above j, for each j, in the dtype of the values."""
    for j in range(edges.size):
        half = (j + 0.5) - zero
        edges[j] = half * scale
        # Eq. 6 rounds a quotient. That of the edge itself says whether a value on it still has code j.
        if np.rint(edges[j] / scale) < half:
            edges[j] = np.nextafter(edges[j], edges.dtype.type(np.inf))
