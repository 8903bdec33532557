"""Grids that need only a row's extremes (Eq. 1), float64."""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.launch import launch

SMALLEST_SCALE = tl.constexpr(2.0**-126)
"""The smallest normal float32."""
_LARGEST_ZERO = tl.constexpr(2**15 - 1)
_INTEGERS = tl.constexpr(1.5 * 2.0**52)
"""About here float64 holds the integers and nothing between them."""
_BLOCK_N = 1024
_TILE = 4096
"""Elements a program takes at a time: 32 a thread."""


@triton.jit
def rint(x: tl.tensor) -> tl.tensor:
    """float64 to the nearest integer, half to even; beyond 2^51, where only a clamp can follow, to one nearby."""
    return (x + _INTEGERS) - _INTEGERS


@triton.jit
def grid_of_range(low: tl.tensor, high: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """``Δ = (high - low)/(2^b - 1)``, ``z = -round(low/Δ)``, elementwise, all float64.

    A constant range c has Δ = |c| and z = 0 or 1, a zero one Δ = 1 and z = 0, so that both decode exactly. Δ is at
    least ``max(|low|, |high|)/(2^15 - 1)``, so that z fits 16 bits, and at least the smallest normal float32.
    """
    LEVELS: tl.constexpr = (1 << BITS) - 1
    largest = tl.maximum(tl.abs(low), tl.abs(high))
    scale = tl.maximum((high - low) / LEVELS, largest / _LARGEST_ZERO)
    scale = tl.maximum(tl.where(low == high, largest, scale), SMALLEST_SCALE)
    scale = tl.where(largest == 0.0, 1.0, scale)
    return scale, tl.where(low == high, (low < 0).to(tl.float64), -rint(low / scale))


@triton.jit
def _symmetric_grid(low: tl.tensor, high: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """``Δ = max|w|/(2^(b-1) - 1)``, ``z = 2^(b-1)``; Δ = 1 where all is zero."""
    OFFSET: tl.constexpr = 1 << (BITS - 1)
    largest = tl.maximum(tl.abs(low), tl.abs(high))
    scale = tl.where(largest == 0.0, 1.0, tl.maximum(largest / (OFFSET - 1), SMALLEST_SCALE))
    return scale, tl.full(scale.shape, OFFSET, tl.float64)


@triton.jit
def starts(parts_ptr: tl.tensor, row: tl.tensor, rows: tl.tensor, WIDTH: tl.constexpr) -> tl.tensor:
    """Where each ``row`` of ``parts [rows, WIDTH]`` begins; rows past the end repeat the last."""
    return parts_ptr + tl.minimum(row, rows - 1).to(tl.int64) * WIDTH


@triton.jit
def statistics(start: tl.tensor, WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr) -> tl.tensor:
    """Smallest value, largest value and mean, float64, of the ``WIDTH`` values after each ``start [BLOCK_M]``."""
    low = tl.full((BLOCK_M, BLOCK_N), float("inf"), tl.float64)
    high, total = -low, tl.zeros((BLOCK_M, BLOCK_N), tl.float64)
    for first in range(0, WIDTH, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)[None, :]
        values = tl.load(start[:, None] + column, mask=column < WIDTH, other=0.0).to(tl.float64)
        low = tl.minimum(low, tl.where(column < WIDTH, values, float("inf")))
        high = tl.maximum(high, tl.where(column < WIDTH, values, float("-inf")))
        total += values
    return tl.min(low, axis=1), tl.max(high, axis=1), tl.sum(total, axis=1) / WIDTH


@triton.jit
def store_grid(
    scale_ptr: tl.tensor, zero_ptr: tl.tensor, row: tl.tensor, scale: tl.tensor, zero: tl.tensor, mask: tl.tensor
) -> None:
    """Δ as float32 and z as int16, of each ``row`` where ``mask`` is true."""
    tl.store(scale_ptr + row, scale.to(tl.float32), mask=mask)
    tl.store(zero_ptr + row, zero.to(tl.int32).to(tl.int16), mask=mask)


@triton.jit
def _minmax(
    parts_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    rows: tl.tensor,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """Δ and z ``[rows]`` of the smallest and largest value of each row of ``parts [rows, WIDTH]``.

    A program takes ``BLOCK_M`` rows, ``BLOCK_N`` columns at a time.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    low, high, _ = statistics(starts(parts_ptr, row, rows, WIDTH), WIDTH, BLOCK_M, BLOCK_N)
    if SYMMETRIC:
        scale, zero = _symmetric_grid(low, high, BITS)
    else:
        scale, zero = grid_of_range(low, high, BITS)
    store_grid(scale_ptr, zero_ptr, row, scale, zero, row < rows)


def minmax_grid(parts: torch.Tensor, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Δ float32 and z int16, ``[rows]``, of contiguous ``[rows, width]``: one pass, bound by bytes."""
    rows, width = parts.shape
    scale = torch.empty(rows, dtype=torch.float32, device=parts.device)
    zero = torch.empty(rows, dtype=torch.int16, device=parts.device)
    block_n = min(_BLOCK_N, triton.next_power_of_2(width))
    block_m = _TILE // block_n
    launch(
        _minmax,
        (triton.cdiv(rows, block_m),),
        {"parts_ptr": parts, "scale_ptr": scale, "zero_ptr": zero, "rows": rows},
        {"WIDTH": width, "BITS": bits, "SYMMETRIC": symmetric, "BLOCK_M": block_m, "BLOCK_N": block_n},
    )
    return scale, zero
