"""QuaRot's clip search: of the scales ``p Δ``, p = 1.00, 0.99, … 0.21, the first of least ``Σ |w - ŵ|^2.4``, by row.

In float64, as all grids are searched: most of the time goes into the power, which takes half as long again as in
float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from dvdq_kernels.backends.torch.grids import SMALLEST_SCALE, symmetric_grid
from dvdq_reference.spec.bits import signed_range

_STEPS = 80
_NORM = 2.4
_SERIAL = 32768
"""Elements up to which torch runs an elementwise operation on one thread: chunks stay below, one thread each."""
_CHUNK = 2**23
"""Elements of a chunk on an accelerator, where float64 copies of them take 200 MB."""


def search_clip(parts: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best Δ and z, float64 ``[rows]``, of each row of ``parts`` ``[rows, width]``."""
    width = parts.shape[1]
    if parts.device.type != "cpu":
        results = [_search_chunk(chunk, bits) for chunk in parts.split(max(1, _CHUNK // width))]
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            chunks = parts.split(max(1, _SERIAL // width))
            results = list(pool.map(lambda chunk: _search_chunk(chunk, bits), chunks))
    scale, zero = (torch.cat(tensors) for tensors in zip(*results, strict=True))
    return scale, zero


def _search_chunk(parts: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    values = parts.to(torch.float64)
    start, zero = symmetric_grid(values.abs().amax(dim=1), bits)
    best_scale, best_error = start, torch.full_like(start, torch.inf)
    for step in range(_STEPS):
        scale = ((1 - step / 100) * start).clamp_min_(SMALLEST_SCALE)
        decoded = (values / scale[:, None]).round_().clamp_(*signed_range(bits)).mul_(scale[:, None])
        error = decoded.sub_(values).abs_().pow_(_NORM).sum(dim=1)
        best_scale = torch.where(error < best_error, scale, best_scale)
        best_error = torch.minimum(error, best_error)
    return best_scale, zero
