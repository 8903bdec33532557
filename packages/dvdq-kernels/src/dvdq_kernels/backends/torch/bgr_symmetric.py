"""BGR of a symmetric grid, exact, on :mod:`sorted rows <.sorted_rows>` of magnitudes: the scale alone is refined.

For ``i = 0 … num_bounds - 1`` the scale ``Δ = (1 - i / num_bounds) max|w| / L``, ``L = 2^(b-1) - 1``, becomes
``Δ' = Σ d |w| / Σ d²`` (Eq. 4), ``d`` the codes of the magnitudes, 0 … L, while the squared error falls by more than
``tolerance``; the best scale of each row is kept.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from dvdq_kernels.backends.torch.grids import SMALLEST_SCALE, symmetric_grid
from dvdq_kernels.backends.torch.sorted_rows import SortedRows
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.recipe import BGR_MAX_ROUNDS

_SERIAL = 32768
"""Elements up to which torch runs an elementwise operation on one thread: chunks stay below, one thread each."""
_CHUNK_BYTES = 2**28
"""What a chunk of rows may take on an accelerator."""


def refine_scale(
    parts: torch.Tensor, bits: int, num_bounds: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best Δ and z, float64 ``[rows]``, of each row of ``parts`` ``[rows, width]``."""
    if parts.device.type != "cpu":
        size = max(1, _CHUNK_BYTES // (16 * (parts.shape[1] + 4 * num_bounds * code_offset(bits))))
        scales = [_refine_chunk(chunk, bits, num_bounds, tolerance) for chunk in parts.split(size)]
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            chunks = parts.split(max(1, _SERIAL // (num_bounds * (code_offset(bits) - 1))))
            scales = list(pool.map(lambda chunk: _refine_chunk(chunk, bits, num_bounds, tolerance), chunks))
    scale = torch.cat(scales)
    return scale, torch.full_like(scale, code_offset(bits))


def _refine_chunk(parts: torch.Tensor, bits: int, num_bounds: int, tolerance: float) -> torch.Tensor:
    levels = code_offset(bits) - 1
    rows = SortedRows(parts.abs())
    start, _ = symmetric_grid(rows.high.clone(), bits)
    kept = 1 - torch.arange(num_bounds, dtype=torch.float64, device=parts.device) / num_bounds
    scale = (kept * start[:, None]).clamp_min_(SMALLEST_SCALE).view(-1)
    zero = torch.zeros_like(scale)
    row = torch.arange(parts.shape[0], dtype=torch.int32, device=parts.device).repeat_interleave(num_bounds)
    sums = rows.sums(row, scale, zero, levels)
    best = torch.stack((scale, sums[3]))
    at = torch.arange(row.shape[0], device=parts.device)
    for _ in range(BGR_MAX_ROUNDS):
        dw, dd, _, error = sums
        least_squares = dw / dd
        scale = torch.where(least_squares >= SMALLEST_SCALE, least_squares, scale)
        sums = rows.sums(row, scale, zero[: len(row)], levels)
        better = (sums[3] < error).nonzero()[:, 0]
        best[:, at[better]] = torch.stack((scale, sums[3]))[:, better]
        going = better[error[better] - sums[3][better] > tolerance * error[better]]
        if going.numel() == 0:
            break
        at, row, scale, sums = at[going], row[going], scale[going], sums[:, going]
    found = best.view(2, -1, num_bounds)
    return found[0].gather(1, found[1].argmin(dim=1)[:, None])[:, 0]
