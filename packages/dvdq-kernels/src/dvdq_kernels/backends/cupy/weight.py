"""Weights to codes and back (Eq. 1, 2)."""

from __future__ import annotations

import torch

from dvdq_kernels.backends.cupy.alignment import aligned
from dvdq_kernels.backends.cupy.bgr import refined_grid
from dvdq_kernels.backends.cupy.encoding import decode, encode
from dvdq_kernels.backends.cupy.grids import minmax_grid


def quantize_weight(
    weight: torch.Tensor,
    bits: int,
    grid: str,
    group_size: int | None,
    symmetric: bool,
    num_bounds: int,
    tolerance: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes uint8, Δ float32 and z int16, both ``[out, groups]``."""
    weight = aligned(weight)
    out_features, in_features = weight.shape
    parts = weight.view(-1, in_features if group_size is None else group_size)
    if grid == "bgr":
        scale, zero = refined_grid(parts, bits, num_bounds, tolerance)
    else:
        scale, zero = minmax_grid(parts, bits, symmetric)
    scale, zero = scale.view(out_features, -1), zero.view(out_features, -1)
    return encode(weight, scale, zero, bits), scale, zero


def dequantize(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
) -> torch.Tensor:
    """``Ŵ = Δ(q - z)`` float32 ``[out, in]``."""
    zero = None if zero is None else zero.contiguous()
    return decode(aligned(qweight), scale.contiguous(), zero, bits, in_features)
