"""Grids that need only a row's extremes (Eq. 1), float64."""

from __future__ import annotations

import torch

from dvdq_reference.spec.bits import code_offset, unsigned_range

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_LARGEST_ZERO = 2**15 - 1


def grid_of_range(low: torch.Tensor, high: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``Δ = (high - low)/(2^b - 1)``, ``z = -round(low/Δ)``, elementwise, for float64.

    A constant range c has Δ = |c| and z = 0 or 1, a zero one Δ = 1 and z = 0, so that both decode exactly. Δ is at
    least ``max(|low|, |high|)/(2^15 - 1)``, so that z fits 16 bits, and at least the smallest normal float32.
    """
    largest = torch.maximum(low.abs(), high.abs())
    constant = low == high
    scale = torch.maximum((high - low) / unsigned_range(bits)[1], largest / _LARGEST_ZERO)
    scale = torch.where(constant, largest, scale).clamp_min_(SMALLEST_SCALE).masked_fill_(largest == 0, 1.0)
    zero = torch.where(constant, (low < 0).to(torch.float64), -torch.round(low / scale))
    return scale, zero


def symmetric_grid(largest: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``Δ = max|w|/(2^(b-1) - 1)``, ``z = 2^(b-1)``; Δ = 1 where all is zero."""
    scale = (largest / (code_offset(bits) - 1)).clamp_min_(SMALLEST_SCALE).masked_fill_(largest == 0, 1.0)
    return scale, torch.full_like(scale, code_offset(bits))
