"""Bounded-init grid refinement (Algorithm 1, Eq. 4-8), exact, on :mod:`sorted rows <.sorted_rows>`.

For ``i = 0 … num_bounds - 1`` the grid of the range, cut by ``i / (2 num_bounds)`` at both ends, is refined:

``Δ' = Σ d w / Σ d²`` (Eq. 4), ``z' = clamp(round(mean(q) - mean(w)/Δ'), 0, 2^b - 1)`` (Eq. 5), and their codes (Eq. 6),

while the squared error falls by more than ``tolerance``; the best grid of each row is kept. All grids of a chunk of
rows are refined together, and those that have stopped leave the batch.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from dvdq_kernels.backends.torch.grids import SMALLEST_SCALE, grid_of_range
from dvdq_kernels.backends.torch.sorted_rows import SortedRows
from dvdq_reference.spec.bits import unsigned_range
from dvdq_reference.spec.recipe import BGR_MAX_ROUNDS

_SERIAL = 32768
"""Elements up to which torch runs an elementwise operation on one thread: chunks stay below, one thread each."""
_CHUNK_BYTES = 2**28
"""What a chunk of rows may take on an accelerator."""


def refine(
    parts: torch.Tensor, bits: int, num_bounds: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best Δ, z and squared error, float64 ``[rows]``, of each row of ``parts`` ``[rows, width]``."""
    edges = num_bounds * unsigned_range(bits)[1]
    if parts.device.type != "cpu":
        size = max(1, _CHUNK_BYTES // (16 * (parts.shape[1] + 4 * edges)))
        results = [_refine_chunk(c, bits, num_bounds, tolerance) for c in parts.split(size)]
    else:
        chunks = parts.split(max(1, _SERIAL // edges))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            results = list(pool.map(lambda c: _refine_chunk(c, bits, num_bounds, tolerance), chunks))
    scale, zero, error = (torch.cat(tensors) for tensors in zip(*results, strict=True))
    return scale, zero, error


def _refine_chunk(
    parts: torch.Tensor, bits: int, num_bounds: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    levels = unsigned_range(bits)[1]
    rows = SortedRows(parts)
    shrink = torch.arange(num_bounds, dtype=torch.float64, device=parts.device) / (2 * num_bounds)
    cut = shrink * (rows.high - rows.low)[:, None]
    scale, zero = (t.view(-1) for t in grid_of_range(rows.low[:, None] + cut, rows.high[:, None] - cut, bits))
    row = torch.arange(parts.shape[0], dtype=torch.int32, device=parts.device).repeat_interleave(num_bounds)
    sums = rows.sums(row, scale, zero, levels)
    best = torch.stack((scale, zero, sums[3]))
    at = torch.arange(row.shape[0], device=parts.device)
    for _ in range(BGR_MAX_ROUNDS):
        dw, dd, q, error = sums
        least_squares = dw / dd
        scale = torch.where(least_squares >= SMALLEST_SCALE, least_squares, scale)
        zero = (q.div_(rows.width) - (rows.total[row] / rows.width).div_(scale)).round_().clamp_(0, levels)
        sums = rows.sums(row, scale, zero, levels)
        better = (sums[3] < error).nonzero()[:, 0]
        best[:, at[better]] = torch.stack((scale, zero, sums[3]))[:, better]
        going = better[error[better] - sums[3][better] > tolerance * error[better]]
        if going.numel() == 0:
            break
        at, row, scale, sums = at[going], row[going], scale[going], sums[:, going]
    best = best.view(3, -1, num_bounds)
    winner = best[2].argmin(dim=1)[None, :, None].expand(3, -1, 1)
    scale, zero, error = best.gather(2, winner)[..., 0]
    return scale, zero, error
