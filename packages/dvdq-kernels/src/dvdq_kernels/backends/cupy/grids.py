"""Grids that need only a row's extremes (Eq. 1), float64."""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.rows import Rows
from dvdq_reference.spec.bits import unsigned_range

_EACH = 16
"""Values a thread at least: four loads of float32."""


def empty_grid(parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for Δ float32 and z int16 of each row."""
    rows = parts.shape[0]
    return (
        torch.empty(rows, dtype=torch.float32, device=parts.device),
        torch.empty(rows, dtype=torch.int16, device=parts.device),
    )


def minmax_grid(parts: torch.Tensor, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Δ float32 and z int16, ``[rows]``, of an aligned ``[rows, width]``: one pass, bound by bytes."""
    scale, zero = empty_grid(parts)
    rows = Rows(parts, _EACH)
    sizes = np.int64(parts.shape[0]), np.int32(parts.shape[1]), np.int32(unsigned_range(bits)[1])
    launch(
        Launch(
            "minmax",
            "grid.cu",
            (parts, scale, zero, *sizes, np.int32(symmetric)),
            rows.constants(),
            grid=rows.grid,
            threads=rows.threads,
            shared=rows.scratch,
            tile=f"{rows.team} a row",
        )
    )
    return scale, zero
