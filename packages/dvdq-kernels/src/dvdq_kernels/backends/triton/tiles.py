"""How the tokens of a rotation lie in tiles, and the factors that a tile is multiplied by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import triton

from dvdq_kernels.backends.triton.launch import held_dtype
from dvdq_kernels.gpu import multiprocessors
from dvdq_kernels.kept import kept
from dvdq_kernels.rotation import core_size, hadamard_size, paley, rotation_signs, sylvester

_WIDEST = 256
_FEWEST_ROWS, _MOST_ROWS = 64, 128


@dataclass(frozen=True)
class Tile:
    """How tokens lie in a tile, e.g. five of 3,072 channels: ``Tile(members=12, width=256, tokens=5, rows=64)``.

    Attributes:
        members: rows of a token.
        width: channels in a row, a power of two.
        tokens: whole tokens in a tile.
        rows: rows of a tile, a power of two; those past ``tokens · members`` are empty.
        lower: rows below them, for a token that is taller: 140 rows are 128 and 16, where 256 would not fit on chip.
    """

    members: int
    width: int
    tokens: int
    rows: int
    lower: int = 0

    @property
    def piece(self) -> int:
        """Channels in a piece; at least 16, the fewest that a tensor core takes, though fewer may be in use."""
        return min(max(self.width, 16), 32)

    @property
    def pieces(self) -> int:
        """Pieces in a row."""
        return -(-self.width // self.piece)

    @property
    def warps(self) -> int:
        """Up to 128 values a thread, and half as many in tall tiles, whose left factor takes registers too."""
        values = (self.rows + self.lower) * self.width
        return min(max(values // 4096, 8 if self.rows > _FEWEST_ROWS else 4), 16)

    def stages(self, dtype: torch.dtype, signed: bool) -> int:
        """2 has the next tile on its way, for which 100 KB of shared memory must hold it, its signs and the factors."""
        return 1 if dtype.itemsize > 2 or (signed and self.rows > _FEWEST_ROWS) else 2

    def of_one_token(self) -> Tile:
        """The same with one token in it."""
        return replace(self, tokens=1)

    def programs(self, tokens: int, device: torch.device) -> int:
        """As many as fit on the device at once, if there are tiles for all: each keeps the factors for many tiles."""
        resident = min(max(32768 // (self.rows * self.width), 1), 8)
        tiles = -(-tokens // self.tokens)
        return min(tiles, resident * multiprocessors(device))


def tile_of(in_features: int, kind: str) -> Tile:
    """The tile for a rotation.

    Rows of up to 256 channels leave a small outer factor, of which more fit in 64 rows (5 of 12 or 3 of 20: 94 % in
    use); width costs one addition a channel for each doubling, height a product.
    """
    size = hadamard_size(in_features, kind)
    core = core_size(size)
    assert core is not None
    width = min(size // core, _WIDEST)
    members = in_features // width
    if members > _MOST_ROWS:
        return Tile(members, width, 1, _MOST_ROWS, max(triton.next_power_of_2(members - _MOST_ROWS), 16))
    rows = max(_FEWEST_ROWS, triton.next_power_of_2(members))
    return Tile(members, width, rows // members, rows)


def rows_in_place(x: torch.Tensor) -> torch.Tensor:
    """``x`` as a matrix ``[tokens, in]`` of contiguous rows at any distance, copied only where it is not one."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def operands(tile: Tile, kind: str, seed: int | None, x: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """What a kernel multiplies ``x`` by: the signs, if any, and the factors."""
    left, right = _factors(tile, kind, x.dtype, x.device)
    signs = _signs(x.shape[-1], kind, seed, x.dtype, x.device)
    return {"signs_ptr": signs, "left_ptr": left, "right_ptr": right}


@kept
def _factors(
    tile: Tile, kind: str, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The left factor ``kron(I, Hᵀ)``, None if H is 1, and ``H_piece``, zero-padded, for activations of ``dtype``."""
    size = hadamard_size(tile.members * tile.width, kind)
    outer, core = size // tile.width, core_size(size)
    assert core is not None
    parts = held_dtype(torch.bfloat16)
    whole = torch.float16 if dtype == torch.float16 else parts
    width = min(tile.width, tile.piece)
    right = np.zeros((tile.piece, tile.piece))
    right[:width, :width] = sylvester(width)
    if outer == 1:
        return None, torch.tensor(right, dtype=whole, device=device)
    used = tile.tokens * tile.members
    left = np.zeros((tile.rows + tile.lower,) * 2)
    left[:used, :used] = np.kron(np.eye(used // outer), np.kron(paley(core), sylvester(outer // core)).T)
    return torch.tensor(left, dtype=whole, device=device), torch.tensor(right, dtype=parts, device=device)


@kept
def _signs(
    in_features: int, kind: str, seed: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """The ``±1`` of ``diag(±1) H``, ``[in]``, for activations of ``dtype``; None if all are 1."""
    signs = rotation_signs(in_features, kind, seed)
    held = held_dtype(dtype) if dtype.itemsize == 2 else torch.float32
    return None if signs is None else torch.tensor(signs, dtype=held, device=device)
