"""``X R`` over the last dimension, in one pass over X."""

from __future__ import annotations

import torch

from dvdq_kernels.backends.cupy.rotation_tiles import launch_rotation, rows_in_place, tile_of
from dvdq_kernels.rotation import core_size, hadamard_size, paley, rotation_signs


def rotate(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """``X R`` in the dtype of ``x``; computed in float32, or float64 if that is its dtype.

    Sizes that fit no tile are computed in float64 too, by torch (:func:`~.rotation_tiles.tile_of`).
    """
    tile = None if x.dtype == torch.float64 else tile_of(x, kind)
    if tile is None:
        return _rotate_double(x.to(torch.float64), kind, seed).to(x.dtype)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch_rotation("rotate", tile, rows_in_place(x), (out,), kind, seed)
    return out


def _rotate_double(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """By a product and passes over memory: weights in float64 are rare, and so are sizes that no model has."""
    size = hadamard_size(x.shape[-1], kind)
    core = core_size(size)
    assert core is not None
    signs = rotation_signs(x.shape[-1], kind, seed)
    if signs is not None:
        x = x * torch.tensor(signs, device=x.device)
    outer = torch.tensor(paley(core).T / size**0.5, device=x.device)
    values = outer @ x.reshape(-1, core, size // core)
    apart = 1
    while apart < size // core:
        pairs = values.reshape(-1, 2, apart)
        values = torch.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), dim=1)
        apart *= 2
    return values.reshape(x.shape)
