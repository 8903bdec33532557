"""Weights to codes and back (Eq. 1, 2)."""

from __future__ import annotations

import torch

from dvdq_kernels.backends.torch.bgr import refine
from dvdq_kernels.backends.torch.bgr_symmetric import refine_scale
from dvdq_kernels.backends.torch.clip_search import search_clip
from dvdq_kernels.backends.torch.grids import grid_of_range, symmetric_grid
from dvdq_kernels.backends.torch.packing import pack, unpack
from dvdq_reference.spec.bits import code_offset, unsigned_range
from dvdq_reference.spec.recipe import least_code


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
    out_features, in_features = weight.shape
    parts = weight.reshape(-1, in_features if group_size is None else group_size)
    if grid == "bgr":
        scale, zero, _ = refine(parts, bits, num_bounds, tolerance)
    elif grid == "bgr-symmetric":
        scale, zero = refine_scale(parts, bits, num_bounds, tolerance)
    elif grid == "clip-search":
        scale, zero = search_clip(parts, bits)
    else:
        low, high = parts.amin(dim=1).to(torch.float64), parts.amax(dim=1).to(torch.float64)
        largest = torch.maximum(low.abs(), high.abs())
        scale, zero = symmetric_grid(largest, bits) if symmetric else grid_of_range(low, high, bits)
    stored = scale.to(torch.float32)
    least = least_code(grid)
    codes = encode(parts, stored, zero, bits, least).view(out_features, in_features)
    return pack(codes, bits), stored.view(out_features, -1), zero.to(torch.int16).view(out_features, -1)


def encode(parts: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, least: int = 0) -> torch.Tensor:
    """``q = clamp(round(w/Δ) + z, least, 2^b - 1)`` uint8, half to even, divided in float64."""
    scale, zero = scale.to(torch.float64), zero.to(torch.float64)
    # Chunks, because float64 copies of a large weight would be what takes most memory.
    size = max(1, 2**17 // parts.shape[1])
    codes = torch.empty(parts.shape, dtype=torch.uint8, device=parts.device)
    for part, step, offset, out in zip(
        parts.split(size), scale.split(size), zero.split(size), codes.split(size), strict=True
    ):
        out.copy_((part / step[:, None]).round_().add_(offset[:, None]).clamp_(least, unsigned_range(bits)[1]))
    return codes


def dequantize(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
) -> torch.Tensor:
    """``Ŵ = Δ(q - z)`` float32 ``[out, in]``."""
    offset = code_offset(bits) if zero is None else 0
    codes = unpack(qweight, bits, torch.float32, offset).view(*scale.shape, -1)
    if zero is not None:
        codes -= zero.unsqueeze(-1)
    return codes.mul_(scale.unsqueeze(-1)).view(-1, in_features)
