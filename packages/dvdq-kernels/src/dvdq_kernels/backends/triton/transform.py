"""The Hadamard transform of a tile of tokens, which never leaves the chip: what every program does.

A token is a matrix ``[members, width]`` of its channels and its transform ``Hᵀ X H_width / √size``, H the outer factor.
Whole tokens lie below one another in a tile's rows and its columns are cut into pieces of ``piece`` channels, so that
``H_width = H_pieces ⊗ H_piece``. Three steps follow, the first two on tensor cores:

1. H over the rows of each token, as one matrix ``kron(I, Hᵀ)``: exact products of ±1 with what 16 bits hold;
2. ``H_piece`` within each piece: float32 by now, so three parts of 8 bits each, whose products are exact again;
3. ``H_pieces`` across pieces, by sums and differences of whole pieces: no value leaves its thread.
"""

import triton
import triton.language as tl


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
    sums = tl.zeros((factor.shape[0], x.shape[1]) if FROM_LEFT else x.shape, tl.float32)
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
def magnitude(x: tl.tensor) -> tl.tensor:
    """The bits of ``|x|``, int32, which are in the order of ``|x|``; infinity is above all numbers, NaN above that."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _load_block(
    matrix_ptr: tl.tensor,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    START: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
) -> tl.tensor:
    """The rows from ``FIRST`` on, and of those the columns from ``START`` on, of a matrix of ``STRIDE`` columns."""
    row, column = FIRST + tl.arange(0, ROWS), START + tl.arange(0, COLUMNS)
    return tl.load(matrix_ptr + row[:, None] * STRIDE + column[None, :])


@triton.jit
def load_factors(left_ptr: tl.tensor, right_ptr: tl.tensor, TILE: tl.constexpr) -> tl.tuple:
    """The right factor and, if there is one, the left: whole, or in four blocks if there are lower rows."""
    factors: tl.tuple = (_load_block(right_ptr, 0, TILE.piece, 0, TILE.piece, TILE.piece),)
    if left_ptr is not None:
        SIZE: tl.constexpr = TILE.rows + TILE.lower
        factors += (_load_block(left_ptr, 0, TILE.rows, 0, TILE.rows, SIZE),)
        if TILE.lower:
            factors += (_load_block(left_ptr, 0, TILE.rows, TILE.rows, TILE.lower, SIZE),)
            factors += (_load_block(left_ptr, TILE.rows, TILE.lower, 0, TILE.rows, SIZE),)
            factors += (_load_block(left_ptr, TILE.rows, TILE.lower, TILE.rows, TILE.lower, SIZE),)
    return factors


@triton.jit
def parts_of(
    tile: tl.tensor,
    tokens: tl.tensor,
    TOKENS: tl.constexpr,
    PARTS: tl.constexpr,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
) -> tl.tuple:
    """Of ``COUNT`` parts of a tile whose ``TOKENS`` tokens have ``PARTS`` each: token, part of it, whether there is."""
    index = FIRST + tl.arange(0, COUNT)
    token = (tile * TOKENS + index // PARTS).to(tl.int64)
    return token, index % PARTS, (index < TOKENS * PARTS) & (token < tokens)


@triton.jit
def layout(
    tile: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tuple:
    """Of the first piece of ``ROWS`` rows of a tile: where its tokens begin, channels in them, whether there are such.

    Tokens are ``stride`` apart.
    """
    token, member, held = parts_of(tile, tokens, TILE.tokens, TILE.members, FIRST, ROWS)
    column = tl.arange(0, TILE.piece)
    inside = held[:, None] & (column < TILE.width)[None, :] if TILE.width < TILE.piece else held[:, None]
    return (token * stride)[:, None], member[:, None] * TILE.width + column[None, :], inside


@triton.jit
def _load(
    source: tl.tuple,
    tile: tl.tensor,
    tokens: tl.tensor,
    PIECE: tl.constexpr,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """Piece number ``PIECE`` of ``ROWS`` rows of x, with its signs."""
    x_ptr, stride, signs_ptr = source
    at, channel, inside = layout(tile, tokens, stride, FIRST, ROWS, TILE)
    x = tl.load(x_ptr + (at + channel) + PIECE * TILE.piece, mask=inside, other=0)
    if x.dtype == tl.float64:
        x = x.to(tl.float32)
    if signs_ptr is not None:
        sign = tl.load(signs_ptr + channel + PIECE * TILE.piece, mask=inside, other=0)
        x = (x.to(sign.dtype) * sign).to(x.dtype)
    return x


@triton.jit
def _mixed(pieces: tl.tuple) -> tl.tuple:
    """``H_pieces`` across pieces."""
    for level in tl.static_range(len(pieces).bit_length() - 1):
        mixed: tl.tuple = ()
        for i in tl.static_range(len(pieces)):
            partner = pieces[i ^ (1 << level)]
            mixed += (partner - pieces[i] if i & (1 << level) else partner + pieces[i],)
        pieces = mixed
    return pieces


@triton.jit
def transformed(
    source: tl.tuple, factors: tl.tuple, tile: tl.tensor, tokens: tl.tensor, TILE: tl.constexpr
) -> tl.tuple:
    """The pieces of a tile's rows and those of its lower rows, if it has any: float32, ``√size`` times too large.

    ``source`` is x, how far its tokens are apart, and the signs or None.
    """
    upper: tl.tuple = ()
    lower: tl.tuple = ()
    PIECES: tl.constexpr = TILE.pieces
    for i in tl.static_range(PIECES):
        x = _load(source, tile, tokens, i, 0, TILE.rows, TILE)
        if TILE.lower:
            below = _load(source, tile, tokens, i, TILE.rows, TILE.lower, TILE)
            mixed_below = product(x, factors[3], True) + product(below, factors[4], True)
            lower += (product(mixed_below, factors[0], False),)
            x = product(x, factors[1], True) + product(below, factors[2], True)
        elif len(factors) > 1:
            x = product(x, factors[1], True)
        upper += (product(x, factors[0], False),)
    return _mixed(upper), _mixed(lower)
