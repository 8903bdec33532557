"""Bounded-init grid refinement (Algorithm 1, Eq. 4-8) by brute force: a row comes from memory once.

The search is in float64, as the oracle's is: whether to go on hangs on a thousandth of the error, and float32 sums,
right to about 1e-7 of it, would now and then refine a grid once more or once less.
"""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.grids import empty_grid
from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.rows import Rows
from dvdq_kernels.backends.cupy.target import target_of
from dvdq_kernels.gpu import shared_memory
from dvdq_reference.spec.bits import unsigned_range
from dvdq_reference.spec.recipe import BGR_MAX_ROUNDS

_EACH = 16
"""Values a thread at least: work that outweighs adding up across threads, and three divisions, once a grid."""


def refined_grid(
    parts: torch.Tensor, bits: int, num_bounds: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Δ float32 and z int16, ``[rows]``, of an aligned ``[rows, width]``.

    Bound by float64 arithmetic: eleven operations a value and evaluated grid. A row lies in shared memory; one that
    does not fit, beyond 25,000 float32 on the smallest of GPUs, is read again for every grid.
    """
    scale, zero = empty_grid(parts)
    rows = Rows(parts, _EACH)
    shared = rows.scratch + rows.staged
    staged = shared <= shared_memory(target_of(parts.device))
    sizes = np.int64(parts.shape[0]), np.int32(parts.shape[1]), np.int32(unsigned_range(bits)[1])
    bounds = np.int32(num_bounds), np.int32(BGR_MAX_ROUNDS), np.float64(tolerance)
    launch(
        Launch(
            "refine",
            "bgr.cu",
            (parts, scale, zero, *sizes, *bounds),
            {**rows.constants(), "STAGED": staged},
            grid=rows.grid,
            threads=rows.threads,
            shared=shared if staged else rows.scratch,
            tile=f"{rows.team} a row",
        )
    )
    return scale, zero
