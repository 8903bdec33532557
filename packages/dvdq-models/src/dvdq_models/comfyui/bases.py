"""The rotation of ComfyUI's files, and codes of ours in its basis.

Theirs is ``W H``, H on each block of 256, 64 or 16 channels the normalized Kronecker power of

``H_4 = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]``,

which is its own transpose. Our ``regular`` rotation R of blocks of 256 has the same columns but for signs and order:
``Rᵀ H`` is a signed permutation. So codes of ``W R`` on a grid that is its own mirror image become those of ``W H`` by
relabelling, and both are one weight.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from dvdq_kernels.rotation import rotation_signs, sylvester
from dvdq_reference.spec.recipe import ROTATION_BLOCK

SIZES = (ROTATION_BLOCK, 64, 16)
"""Blocks of channels that its kernels rotate, the preferred first."""


@cache
def hadamard(size: int) -> torch.Tensor:
    """H, float32 ``[size, size]``, symmetric and orthonormal; ``size`` is a power of 4."""
    four = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float32)
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.kron(matrix, four)
    return matrix / math.sqrt(size)


def rotate(weight: torch.Tensor, size: int) -> torch.Tensor:
    """``W H`` in float32, ``[out, in]``."""
    return (weight.to(torch.float32).view(-1, size) @ hadamard(size).to(weight.device)).view(weight.shape)


def rotated_moments(moments: torch.Tensor, size: int | None) -> torch.Tensor:
    """``Hᵀ E[XᵀX] H`` in float64, the second moments of ``X H``; of size None those of X."""
    h = moments.to(torch.float64)
    if size is None:
        return h
    for _ in range(2):
        h = (h.view(-1, size) @ hadamard(size).to(h)).view(h.shape).T.contiguous()
    return h


def relabel(codes: torch.Tensor) -> torch.Tensor:
    """Signed codes int8 ``[out, in]`` of ``W R``, R our ``regular`` rotation, as those of ``W H`` in blocks of 256."""
    order, signs = (tensor.to(codes.device) for tensor in _relabelling())
    return (codes.view(-1, ROTATION_BLOCK)[:, order] * signs).view(codes.shape)


@cache
def _relabelling() -> tuple[torch.Tensor, torch.Tensor]:
    """Which column of ``W R`` each one of ``W H`` is, and its sign, int8."""
    signs = torch.from_numpy(rotation_signs(ROTATION_BLOCK, "regular", None)).to(torch.float32)
    ours = signs[:, None] * torch.from_numpy(sylvester(ROTATION_BLOCK)).to(torch.float32) / math.sqrt(ROTATION_BLOCK)
    permutation = (ours.T @ hadamard(ROTATION_BLOCK)).round()
    return permutation.abs().argmax(dim=0), permutation.sum(dim=0).to(torch.int8)
