"""Bounded-init grid refinement (Algorithm 1, Eq. 4-8) by sorted prefix sums, exact.

A grid's codes are monotonic in the weight, so in a sorted row they are a staircase: it is enough to know the counts
``n_j`` of values with a code of at most j. With prefix sums P of the sorted row (``C_j = P[n_j]``) and m values,

``Σ q = Σ_j (m - n_j)``, ``Σ q² = Σ_j (2j + 1)(m - n_j)``, ``Σ q w = Σ_j (C_m - C_j)``, for j = 0 … 2^b - 2,

which is all that Eq. 4, Eq. 5 and the squared error need. One refinement of one row then costs ``2^b log m`` instead
of m. Sums are float64.
"""

from __future__ import annotations

import torch

from dvdq_reference.spec.bits import unsigned_range
from dvdq_reference.spec.recipe import BGR_BOUNDS, BGR_MAX_ROUNDS, BGR_TOLERANCE

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def refine(
    parts: torch.Tensor,
    bits: int,
    num_bounds: int = BGR_BOUNDS,
    tolerance: float = BGR_TOLERANCE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best Δ, z and squared error, float64 ``[rows]``, of each row of ``parts`` ``[rows, width]``."""
    from dvdq_kernels.backends.torch.weight import grid_of_range

    values = parts.to(torch.float64).sort(dim=1).values
    rows, width = values.shape
    levels = unsigned_range(bits)[1]
    prefix = torch.zeros((rows, width + 1), dtype=torch.float64, device=values.device)
    torch.cumsum(values, dim=1, out=prefix[:, 1:])
    squares = values.square().sum(dim=1, keepdim=True)
    total = prefix[:, -1:]
    mean = total / width
    half = torch.arange(levels, dtype=torch.float64, device=values.device) + 0.5
    odd = 2 * half

    def sums(scale, zero):  # type: ignore[no-untyped-def]
        """``Σ d w``, ``Σ d²``, ``Σ q`` and the error of grids ``[rows, bounds]``."""
        edges = (half - zero[..., None]) * scale[..., None]
        counts = torch.searchsorted(values, edges.view(rows, -1))
        below = prefix.gather(1, counts).view_as(edges)
        above = (width - counts).view_as(edges).to(torch.float64)
        q = above.sum(-1)
        qq = above @ odd
        qw = levels * total - below.sum(-1)
        dw = qw - zero * total
        dd = qq - 2 * zero * q + zero.square() * width
        error = (squares - scale * (2 * dw - scale * dd)).clamp_min(0.0)
        return dw, dd, q, error

    shrink = torch.arange(num_bounds, dtype=torch.float64, device=values.device) / (2 * num_bounds)
    low, high = values[:, :1], values[:, -1:]
    cut = shrink * (high - low)
    scale, zero = grid_of_range(low + cut, high - cut, bits)
    dw, dd, q, error = sums(scale, zero)
    active = torch.ones_like(error, dtype=torch.bool)
    for _ in range(BGR_MAX_ROUNDS):
        new = dw / dd
        new_scale = torch.where(new >= _SMALLEST_SCALE, new, scale)
        new_zero = (q / width - mean / new_scale).round().clamp(0, levels)
        ndw, ndd, nq, nerror = sums(new_scale, new_zero)
        better = active & (nerror < error)
        active = better & ((error - nerror) > tolerance * error)
        scale, zero, dw, dd, q, error = (
            torch.where(better, n, o)
            for n, o in ((new_scale, scale), (new_zero, zero), (ndw, dw), (ndd, dd), (nq, q), (nerror, error))
        )
        if not bool(active.any()):
            break
    best = error.argmin(dim=1, keepdim=True)
    return scale.gather(1, best)[:, 0], zero.gather(1, best)[:, 0], error.gather(1, best)[:, 0]
