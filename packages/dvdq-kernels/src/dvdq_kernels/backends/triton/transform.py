"""The Hadamard transform of a tile of tokens that never leaves the chip: what a program does, and its factors.

A token is a matrix ``[members, width]`` of its channels and its transform ``Hᵀ X H_width / √size``, H the outer factor.
Whole tokens lie below one another in a tile's rows and its columns are cut into pieces of ``PIECE`` channels, so that
``H_width = H_pieces ⊗ H_PIECE``. Three steps follow, the first two on tensor cores:

1. H over the rows of each token, as one matrix ``kron(I, Hᵀ)``: exact products of ±1 with what 16 bits hold;
2. ``H_PIECE`` within each piece: float32 by now, so three parts of 8 bits each, whose products are exact again;
3. ``H_pieces`` across pieces, by sums and differences of whole pieces: no value leaves its thread.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.launch import multiprocessors
from dvdq_kernels.rotation import core_size, hadamard_size, paley, random_signs, sylvester

_WIDEST = 256
_FEWEST_ROWS = 64


@dataclass(frozen=True)
class Tile:
    """How tokens lie in a tile, e.g. five of 3,072 channels: ``Tile(members=12, width=256, tokens=5, rows=64)``.

    Attributes:
        members: rows of a token.
        width: channels in a row, a power of two.
        tokens: whole tokens in a tile.
        rows: rows of a tile, a power of two; those past ``tokens · members`` are empty.
    """

    members: int
    width: int
    tokens: int
    rows: int

    @property
    def piece(self) -> int:
        """Channels in a piece; at least 16, the fewest that a tensor core takes, though fewer may be in use."""
        return min(max(self.width, 16), 32)

    @property
    def warps(self) -> int:
        """Up to 128 values a thread."""
        return min(max(self.rows * self.width // 4096, 4), 16)

    def stages(self, dtype: torch.dtype) -> int:
        """The next tile is on its way where two fit in shared memory."""
        return 2 if dtype.itemsize == 2 else 1

    def constants(self) -> dict[str, int]:
        """What a kernel takes as constants."""
        return {
            "MEMBERS": self.members,
            "WIDTH": self.width,
            "TOKENS": self.tokens,
            "ROWS": self.rows,
            "PIECE": self.piece,
        }

    def of_one_token(self) -> "Tile":
        """The same with one token in it."""
        return replace(self, tokens=1)


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
    rows = max(_FEWEST_ROWS, triton.next_power_of_2(members))
    return Tile(members, width, rows // members, rows)


def programs(tile: Tile, tokens: int, device: torch.device) -> int:
    """As many as fit on the device at once, if there are tiles for all: each keeps the factors and takes many tiles."""
    resident = min(max(32768 // (tile.rows * tile.width), 1), 8)
    tiles = -(-tokens // tile.tokens)
    return min(tiles, resident * multiprocessors(device))


def rows_in_place(x: torch.Tensor) -> torch.Tensor:
    """``x`` as a matrix ``[tokens, in]`` of contiguous rows at any distance, copied only where it is not one."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


@lru_cache
def factors(
    tile: Tile, kind: str, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The left factor ``kron(I, Hᵀ)``, None if H is 1, and ``H_piece``, zero-padded, for activations of ``dtype``."""
    size = hadamard_size(tile.members * tile.width, kind)
    outer, core = size // tile.width, core_size(size)
    assert core is not None
    parts = _multiplied(torch.bfloat16)
    whole = torch.float16 if dtype == torch.float16 else parts
    width = min(tile.width, tile.piece)
    right = np.zeros((tile.piece, tile.piece))
    right[:width, :width] = sylvester(width)
    with torch.inference_mode(False):
        if outer == 1:
            return None, torch.tensor(right, dtype=whole, device=device)
        used = tile.tokens * tile.members
        left = np.zeros((tile.rows, tile.rows))
        left[:used, :used] = np.kron(np.eye(used // outer), np.kron(paley(core), sylvester(outer // core)).T)
        return torch.tensor(left, dtype=whole, device=device), torch.tensor(right, dtype=parts, device=device)


@lru_cache
def signs(in_features: int, seed: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
    """The ``±1`` of ``diag(±1) H``, ``[in]``, for activations of ``dtype``; None without a seed."""
    if seed is None:
        return None
    held = _multiplied(dtype) if dtype.itemsize == 2 else torch.float32
    with torch.inference_mode(False):
        return torch.tensor(random_signs(in_features, seed), dtype=held, device=device)


def _multiplied(dtype: torch.dtype) -> torch.dtype:
    """``dtype``; but Triton's interpreter multiplies the bits of a bfloat16, of which float32 holds all products."""
    return torch.float32 if dtype == torch.bfloat16 and triton.knobs.runtime.interpret else dtype


@triton.jit
def _product(x: tl.tensor, factor: tl.tensor, FROM_LEFT: tl.constexpr, sums: tl.tensor) -> tl.tensor:
    """``sums + factor @ x`` or ``sums + x @ factor`` for ``x`` that the factor's dtype holds."""
    x = x.to(factor.dtype)
    return tl.dot(factor, x, sums) if FROM_LEFT else tl.dot(x, factor, sums)


@triton.jit
def _leading_bits(x: tl.tensor) -> tl.tensor:
    """A float32 without its last 16 bits: what bfloat16 can hold of it, and the rest is exact."""
    return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def product(x: tl.tensor, factor: tl.tensor, FROM_LEFT: tl.constexpr) -> tl.tensor:
    """``factor @ x`` or ``x @ factor`` for a factor of ±1 and 0: every product exact, the sums in float32.

    24 bits of a float32 are three times 8, so three products of bfloat16 see all of them, the least first.
    """
    sums = tl.zeros(x.shape, tl.float32)
    if x.dtype.primitive_bitwidth == 16:
        sums = _product(x, factor, FROM_LEFT, sums)
    else:
        high = _leading_bits(x)
        middle = _leading_bits(x - high)
        sums = _product(x - high - middle, factor, FROM_LEFT, sums)
        sums = _product(middle, factor, FROM_LEFT, sums)
        sums = _product(high, factor, FROM_LEFT, sums)
    return sums


@triton.jit
def load_factors(left_ptr: tl.tensor, right_ptr: tl.tensor, ROWS: tl.constexpr, PIECE: tl.constexpr) -> tl.tuple:
    """The right factor and, if there is one, the left."""
    column = tl.arange(0, PIECE)
    factors: tl.tuple = (tl.load(right_ptr + column[:, None] * PIECE + column[None, :]),)
    if left_ptr is not None:
        row = tl.arange(0, ROWS)
        factors += (tl.load(left_ptr + row[:, None] * ROWS + row[None, :]),)
    return factors


@triton.jit
def magnitude(x: tl.tensor) -> tl.tensor:
    """The bits of ``|x|``, int32, which are in the order of ``|x|``; infinity is above all numbers, NaN above that."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def rows_of(
    tile: tl.tensor, tokens: tl.tensor, MEMBERS: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr
) -> tl.tuple:
    """Of each row of a tile: its token, which of the token's rows it is, and whether it is in use."""
    row = tl.arange(0, ROWS)
    token = (tile * TOKENS + row // MEMBERS).to(tl.int64)
    return token, row % MEMBERS, (row < TOKENS * MEMBERS) & (token < tokens)


@triton.jit
def transformed(
    source: tl.tuple,
    factors: tl.tuple,
    tile: tl.tensor,
    tokens: tl.tensor,
    MEMBERS: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
) -> tl.tuple:
    """The pieces ``[ROWS, PIECE]`` of tile number ``tile``, float32, ``√size`` times too large.

    ``source`` is x, how far its rows are apart, and the signs or None.
    """
    x_ptr, stride, signs_ptr = source
    PIECES: tl.constexpr = (WIDTH + PIECE - 1) // PIECE
    token, member, held = rows_of(tile, tokens, MEMBERS, TOKENS, ROWS)
    column = tl.arange(0, PIECE)
    inside = held[:, None] & (column < WIDTH)[None, :] if WIDTH < PIECE else held[:, None]
    pieces: tl.tuple = ()
    for i in tl.static_range(PIECES):
        channel = member[:, None] * WIDTH + (i * PIECE + column)[None, :]
        x = tl.load(x_ptr + (token * stride)[:, None] + channel, mask=inside, other=0)
        if x.dtype == tl.float64:
            x = x.to(tl.float32)
        if signs_ptr is not None:
            sign = tl.load(signs_ptr + channel, mask=inside, other=0)
            x = (x.to(sign.dtype) * sign).to(x.dtype)
        if len(factors) > 1:
            x = product(x, factors[1], True)
        pieces += (product(x, factors[0], False),)
    for level in tl.static_range(PIECES.bit_length() - 1):
        mixed: tl.tuple = ()
        for i in tl.static_range(PIECES):
            partner = pieces[i ^ (1 << level)]
            mixed += (partner - pieces[i] if i & (1 << level) else partner + pieces[i],)
        pieces = mixed
    return pieces
