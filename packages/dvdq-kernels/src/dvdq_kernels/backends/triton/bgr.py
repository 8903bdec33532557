"""Bounded-init grid refinement (Algorithm 1, Eq. 4-8) by brute force: a row comes from memory once, then from L1.

The search is in float64, as the oracle's is. Whether to go on hangs on a thousandth of the error, and float32 sums,
right to about 1e-7 of it, would now and then refine a grid once more or once less; nor could they hold the squares of
every weight that float32 holds. A value costs eleven float64 operations, which take longer than its four bytes from L1:
nothing is gained from keeping rows in registers, which wide rows overfill and which pad every row to a power of two.
"""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.grids import (
    SMALLEST_SCALE,
    grid_of_range,
    rint,
    starts,
    statistics,
    store_grid,
)
from dvdq_kernels.backends.triton.launch import launch
from dvdq_reference.spec.recipe import BGR_MAX_ROUNDS

_FRACTIONS = tl.constexpr(1.5 * 2.0**20)
"""About here float64 holds the multiples of 2^-32 and nothing between them."""
_STEPS = 16
"""Steps over a row at most. A thread takes four values a step, so this is how much work it has between two sums across
threads, and keeps the rows of all programs that fit on a multiprocessor at once (640 threads) within its L1."""


@triton.jit
def _sums(
    start: tl.tensor,
    WIDTH: tl.constexpr,
    scale: tl.tensor,
    zero: tl.tensor,
    BITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> tl.tensor:
    """``Σ d w``, ``Σ d²``, ``Σ d`` and the error ``Σ (w - Δ d)²`` of each row, ``d = q - z`` by Eq. 6.

    ``BLOCK_N`` columns of the ``BLOCK_M`` rows at ``start`` are taken at a time, and added up before any sum crosses
    threads.
    """
    LEVELS: tl.constexpr = (1 << BITS) - 1
    reciprocal, step, least, most = (1.0 / scale)[:, None], scale[:, None], -zero[:, None], LEVELS - zero[:, None]
    dw = tl.zeros((BLOCK_M, BLOCK_N), tl.float64)
    dd, d, error = dw, dw, dw
    # Unrolled without bound, as the compiler would, the loop is no faster and spills.
    for first in tl.range(0, WIDTH, BLOCK_N, loop_unroll_factor=2):
        column = first + tl.arange(0, BLOCK_N)[None, :]
        values = tl.load(start[:, None] + column, mask=column < WIDTH, other=0.0).to(tl.float64)
        # A product with the reciprocal misses ties by an ulp, at random; rounded to 2^-32 they are ties again.
        quotient = (values * reciprocal + _FRACTIONS) - _FRACTIONS
        steps = rint(quotient)
        steps = tl.where(steps > least, steps, least)
        steps = tl.where(steps < most, steps, most)
        steps = tl.where(column < WIDTH, steps, 0.0)
        residual = values - step * steps
        dw += steps * values
        dd += steps * steps
        d += steps
        error += residual * residual
    return tl.sum(dw, axis=1), tl.sum(dd, axis=1), tl.sum(d, axis=1), tl.sum(error, axis=1)


@triton.jit
def _refine(
    parts_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    rows: tl.tensor,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    BOUNDS: tl.constexpr,
    TOLERANCE: tl.constexpr,
    MAX_ROUNDS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """The best Δ and z ``[rows]`` of each row of ``parts [rows, WIDTH]``; a program refines ``BLOCK_M`` rows in step.

    For ``i = 0 … BOUNDS - 1`` the grid of the range, cut by ``i / (2 BOUNDS)`` at both ends, is refined:
    ``Δ' = Σ d w / Σ d²`` (Eq. 4), ``z' = clamp(round(mean(q) - mean(w)/Δ'), 0, 2^b - 1)`` (Eq. 5), and their codes
    (Eq. 6), while the squared error falls by more than ``TOLERANCE``; the first of the best grids is kept.
    """
    LEVELS: tl.constexpr = (1 << BITS) - 1
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    start = starts(parts_ptr, row, rows, WIDTH)
    low, high, mean = statistics(start, WIDTH, BLOCK_M, BLOCK_N)

    best_error = tl.full((BLOCK_M,), float("inf"), tl.float64)
    best_scale, best_zero = best_error, best_error
    for i in range(BOUNDS):
        cut = tl.cast(i, tl.float64) / (2 * BOUNDS) * (high - low)
        scale, zero = grid_of_range(low + cut, high - cut, BITS)
        dw, dd, d, error = _sums(start, WIDTH, scale, zero, BITS, BLOCK_M, BLOCK_N)
        going = row < rows
        rounds = 0
        while (tl.max(going.to(tl.int32), axis=0) > 0) & (rounds < MAX_ROUNDS):
            least_squares = dw / tl.where(dd > 0, dd, 1.0)
            new_scale = tl.where(least_squares >= SMALLEST_SCALE, least_squares, scale)
            new_zero = rint((d + WIDTH * zero) / WIDTH - mean / new_scale)
            new_zero = tl.minimum(tl.maximum(new_zero, 0.0), LEVELS)
            dw, dd, d, new_error = _sums(start, WIDTH, new_scale, new_zero, BITS, BLOCK_M, BLOCK_N)
            better = going & (new_error < error)
            going = better & (error - new_error > TOLERANCE * error)
            scale, zero = tl.where(better, new_scale, scale), tl.where(better, new_zero, zero)
            error = tl.where(better, new_error, error)
            rounds += 1
        better = error < best_error
        best_scale, best_zero = tl.where(better, scale, best_scale), tl.where(better, zero, best_zero)
        best_error = tl.where(better, error, best_error)
    store_grid(scale_ptr, zero_ptr, row, best_scale, best_zero, row < rows)


def refined_grid(
    parts: torch.Tensor, bits: int, num_bounds: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Δ float32 and z int16, ``[rows]``, of contiguous ``[rows, width]``.

    Bound by float64 arithmetic: eleven operations a value and evaluated grid, of which a row of 3072 takes about 140
    with the default rule.
    """
    rows, width = parts.shape
    scale = torch.empty(rows, dtype=torch.float32, device=parts.device)
    zero = torch.empty(rows, dtype=torch.int16, device=parts.device)
    # Triton's interpreter takes as long for a large tile as for a small one.
    interpreted = parts.device.type == "cpu"
    block_n = triton.next_power_of_2(triton.cdiv(width, 4 if interpreted else _STEPS))
    block_m = max(1, (2**13 if interpreted else 128) // block_n)
    launch(
        _refine,
        (triton.cdiv(rows, block_m),),
        {"parts_ptr": parts, "scale_ptr": scale, "zero_ptr": zero, "rows": rows},
        {
            "WIDTH": width,
            "BITS": bits,
            "BOUNDS": num_bounds,
            "TOLERANCE": tolerance,
            "MAX_ROUNDS": BGR_MAX_ROUNDS,
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
        },
        warps=min(32, max(1, block_n // 128)),
    )
    return scale, zero
