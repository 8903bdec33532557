"""How the tokens of a rotation lie in the warps of a block of threads, and the factors that they are multiplied by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.target import multiprocessors, target_of
from dvdq_kernels.gpu import shared_memory
from dvdq_kernels.kept import kept
from dvdq_kernels.rotation import core_size, hadamard_size, paley, rotation_signs, sylvester

_WIDTHS = (32, 64, 128, 256)
_MOST_ROWS = 160
"""Rows that a dense outer factor may mix: each warp reads all of them."""
_RESERVED = 1024
"""Bytes of shared memory that a block takes besides those it asks for."""
_REGISTERS, _OVERHEAD = 65536, 32
"""Of a multiprocessor; of a thread, besides its values and its part of the factor."""
_MOST_BLOCKS = 16
"""Of threads on a multiprocessor: 8.6 has no more."""
_ON_THE_WAY = 6144
"""Bytes that a block of threads should be waiting for."""


@dataclass(frozen=True)
class Tile:
    """How a token lies in a block of threads, 16 rows a warp, e.g. 3,072 channels: ``Tile(48, 64, True)``.

    Attributes:
        members: rows of a token.
        width: channels in a row, a power of two.
        dense: whether the outer factor mixes all rows; else those of 256 channels.
    """

    members: int
    width: int
    dense: bool

    @property
    def warps(self) -> int:
        """The last one may have empty rows."""
        return -(-self.members // 16)

    @property
    def depth(self) -> int:
        """How many times 16 rows of X a warp multiplies."""
        return self.warps if self.dense else 1

    @property
    def resident(self) -> int:
        """Blocks that a multiprocessor has registers for, each of its quarters a quarter; 0 if none fits."""
        a_thread = self.width // 2 + 4 * self.depth + _OVERHEAD
        return min(_REGISTERS // (32 * a_thread) // 4 * 4 // self.warps, _MOST_BLOCKS)

    def stage(self, dtype: torch.dtype) -> int:
        """Bytes of a token in shared memory, 16 more a row than it has; a float32 is three times 16 bits."""
        return self.members * (2 * self.width + 16) * (3 if dtype == torch.float32 else 1)

    def stages(self, dtype: torch.dtype, room: int, fixed: int) -> int:
        """Tokens that a block holds: the one that is computed and the next.

        Each resident block has its part of ``room`` bytes, and ``fixed`` of them for other things. Where there is room
        for one token alone, the next takes its place once it has been multiplied. So do float32, which come through
        registers.
        """
        if dtype == torch.float32:
            return 1
        wanted = -(-_ON_THE_WAY // self.stage(dtype)) + 1
        return max(min(wanted, (room // self.resident - fixed) // self.stage(dtype)), 1)


def tile_of(x: torch.Tensor, kind: str, extra: int = 0) -> Tile | None:
    """The tile for a rotation of ``x``: that with the fewest empty rows and, among these, the widest.

    Twice the width costs an addition a channel, twice the height as many products again. Rows of 256 channels leave few
    registers and are for tokens that fit no other tile.

    Args:
        x: activations.
        kind: of the rotation.
        extra: bytes of shared memory besides a token's.

    Returns:
        None if none fits: where no power of two from 32 on divides the inner factor's size, where a token has more
        than 32,768 channels or so, or float32 that shared memory cannot hold.
    """
    in_features = x.shape[-1]
    size = hadamard_size(in_features, kind)
    core = core_size(size)
    assert core is not None
    room = shared_memory(target_of(x.device)) - extra
    tiles = [Tile(in_features // n, n, size == in_features) for n in _WIDTHS if size // core % n == 0]
    fitting = [
        tile
        for tile in tiles
        if tile.resident and tile.stage(x.dtype) <= room and not (tile.dense and tile.members > _MOST_ROWS)
    ]
    return min(
        fitting, key=lambda tile: (tile.width == _WIDTHS[-1], tile.warps * tile.width, -tile.width), default=None
    )


def rows_in_place(x: torch.Tensor) -> torch.Tensor:
    """``x`` as a matrix ``[tokens, in]`` whose rows can be read 16 bytes at a time, copied only where it is not one."""
    rows = x.reshape(-1, x.shape[-1])
    apart = rows.stride(0) * x.element_size()
    in_place = rows.stride(1) == 1 and apart % 16 == 0 and rows.data_ptr() % 16 == 0
    return rows if in_place else rows.clone(memory_format=torch.contiguous_format)


def launch_rotation(
    kernel: str,
    tile: Tile,
    rows: torch.Tensor,
    outputs: tuple[torch.Tensor, ...],
    kind: str,
    seed: int | None,
    constants: dict[str, Any] | None = None,
    extra: int = 0,
) -> None:
    """Start ``kernel``, of the file of its name: a block of threads takes every so many-th token.

    Args:
        kernel: its name.
        tile: how it divides a token.
        rows: ``[tokens, in]``, of :func:`rows_in_place`.
        outputs: what it writes.
        kind: of the rotation.
        seed: of its signs.
        constants: its own, besides those of ``transform.cuh``.
        extra: bytes of shared memory besides the tokens'.
    """
    tokens, in_features = rows.shape
    signs = _signs(tile, kind, seed, rows.dtype.itemsize, rows.device)
    # A multiprocessor has what one block can have and what it reserves of it for each.
    room, fixed = shared_memory(target_of(rows.device)) + _RESERVED, extra + _RESERVED
    stages = tile.stages(rows.dtype, room, fixed)
    resident = min(tile.resident, room // (stages * tile.stage(rows.dtype) + fixed))
    launch(
        Launch(
            kernel,
            f"{kernel}.cu",
            (
                rows,
                *outputs,
                _factor(tile, kind, rows.dtype, rows.device),
                signs,
                *map(np.int64, (tokens, rows.stride(0))),
            ),
            {
                "IN": rows.dtype,
                "MEMBERS": tile.members,
                "WIDTH": tile.width,
                "DENSE": tile.dense,
                "SIGNED": signs is not None,
                "STAGES": stages,
                "RESIDENT": resident,
                "FACTOR": hadamard_size(in_features, kind) ** -0.5,
                **(constants or {}),
            },
            grid=min(tokens, resident * multiprocessors(rows.device)),
            threads=32 * tile.warps,
            shared=stages * tile.stage(rows.dtype) + extra,
            tile=f"{tile.members}×{tile.width}",
        )
    )


@kept
def _factor(tile: Tile, kind: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``Hᵀ`` of a whole token, zero where rows are empty, as each lane's registers of ``mma.m16n8k16``.

    ``[warps, depth, 32, 4]`` words of 32 bits: lane ``4 g + c`` has in register ``r`` the elements
    ``(g + 8 (r % 2), 2 c + 8 (r / 2))`` and the one to its right.
    """
    size, warps = hadamard_size(tile.members * tile.width, kind), tile.warps
    outer, core = size // tile.width, core_size(size)
    assert core is not None
    matrix = np.zeros((16 * warps, 16 * warps))
    one = np.kron(paley(core), sylvester(outer // core)).T
    matrix[: tile.members, : tile.members] = np.kron(np.eye(tile.members // outer), one)
    # warp, half, g; depth, half, c, which of two
    parts = matrix.reshape(warps, 2, 8, warps, 2, 4, 2).transpose(0, 3, 2, 5, 4, 1, 6)
    if not tile.dense:
        parts = parts[np.arange(warps), np.arange(warps)]
    elements = torch.tensor(parts.reshape(-1), dtype=torch.float16 if dtype == torch.float16 else torch.bfloat16)
    return elements.view(torch.int32).to(device)


@kept
def _signs(tile: Tile, kind: str, seed: int | None, itemsize: int, device: torch.device) -> torch.Tensor | None:
    """The signs of ``diag(±1)``, a bit a channel, as each thread keeps them; None if all are 1.

    Words of 32 bits ``[-, threads]``, each for 4 rounds, in each of which a thread has 16 bytes of a token: in bit
    ``16 h + 4 r + i`` half ``h`` of word ``i`` in round ``r``; a float32 has its sign in the upper half.
    """
    signs = rotation_signs(tile.members * tile.width, kind, seed)
    if signs is None:
        return None
    chunks, threads = signs.size * itemsize // 16, 32 * tile.warps
    words = -(-chunks // (4 * threads))
    bits = np.zeros((4 * words * threads, 4, 2), np.uint32)
    bits[:chunks, :, 2 - 4 // itemsize :] = (signs < 0).reshape(chunks, 4, 4 // itemsize)
    places = np.arange(4)[:, None, None, None] * 4 + np.arange(4)[:, None] + np.arange(2) * 16
    packed = (bits.reshape(words, 4, threads, 4, 2) << places.astype(np.uint32)).sum(axis=(1, 3, 4), dtype=np.uint32)
    return torch.from_numpy(packed.view(np.int32)).to(device)
