"""Weight grids, codes and their inverse (Eq. 1, 2): min-max here, refinement in :mod:`.bgr`."""

from __future__ import annotations

import torch

from dvdq_kernels.backends.torch.bgr import refine
from dvdq_kernels.backends.torch.packing import pack, unpack
from dvdq_reference.spec.bits import code_offset, unsigned_range

_LARGEST_ZERO = 2**15 - 1
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def quantize_weight(
    weight: torch.Tensor, bits: int, grid: str, group_size: int | None, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes uint8, Δ float32 and z int16, both ``[out, groups]``."""
    out_features, in_features = weight.shape
    parts = weight.reshape(-1, in_features if group_size is None else group_size)
    if grid == "bgr":
        scale, zero, _ = refine(parts, bits)
    elif symmetric:
        scale, zero = symmetric_grid(parts, bits)
    else:
        scale, zero = grid_of_range(parts.amin(dim=1).to(torch.float64), parts.amax(dim=1).to(torch.float64), bits)
    stored = scale.to(torch.float32)
    codes = encode(parts, stored, zero, bits)
    packed = pack(codes.view(out_features, in_features), bits)
    return packed, stored.view(out_features, -1), zero.to(torch.int16).view(out_features, -1)


def grid_of_range(low: torch.Tensor, high: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``Δ = (high - low)/(2^b - 1)``, ``z = -round(low/Δ)``, elementwise, for float64.

    A constant range c has Δ = |c| and z = 0 or 1, a zero one Δ = 1 and z = 0, so that both decode exactly. Δ is at
    least ``max(|low|, |high|)/(2^15 - 1)``, so that z fits 16 bits, and at least the smallest normal float32.
    """
    largest = torch.maximum(low.abs(), high.abs())
    constant = low == high
    scale = torch.maximum((high - low) / unsigned_range(bits)[1], largest / _LARGEST_ZERO)
    scale = torch.where(constant, largest, scale).clamp_min(_SMALLEST_SCALE).masked_fill(largest == 0, 1.0)
    zero = torch.where(constant, (low < 0).to(torch.float64), -torch.round(low / scale))
    return scale, zero


def symmetric_grid(parts: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``Δ = max|w|/(2^(b-1) - 1)``, ``z = 2^(b-1)``; a zero row has Δ = 1."""
    largest = parts.abs().amax(dim=1).to(torch.float64)
    scale = (largest / (code_offset(bits) - 1)).clamp_min(_SMALLEST_SCALE)
    return scale.masked_fill(largest == 0, 1.0), torch.full_like(scale, code_offset(bits))


def encode(parts: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """``q = clamp(round(w/Δ) + z, 0, 2^b - 1)`` uint8, half to even, divided in float64."""
    codes = parts.to(torch.float64).div_(scale.to(torch.float64)[:, None]).round_().add_(zero[:, None])
    return codes.clamp_(*unsigned_range(bits)).to(torch.uint8)


def dequantize(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
) -> torch.Tensor:
    """``Ŵ = Δ(q - z)`` float32 ``[out, in]``."""
    codes = unpack(qweight, bits, in_features).to(torch.float32).view(*scale.shape, -1)
    offset = code_offset(bits) if zero is None else zero.unsqueeze(-1)
    return (codes - offset).mul_(scale.unsqueeze(-1)).view(-1, in_features)
