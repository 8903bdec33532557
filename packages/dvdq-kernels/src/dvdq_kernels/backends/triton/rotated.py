"""Rotation and blockwise quantization in one kernel: rotated activations never leave the chip."""

import triton
import triton.language as tl

from dvdq_kernels.backends.triton.quantization import code_of, scale_of
from dvdq_kernels.backends.triton.transform import load_factors, magnitude, rows_of, transformed


@triton.jit
def _members_of(PART: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr) -> tl.tensor:
    """Which of ``PARTS`` parts of ``PART`` rows each of ``ROWS`` rows lies in, bool ``[PARTS, ROWS]``."""
    part = tl.arange(0, PARTS)
    return part[:, None] == (tl.arange(0, ROWS) // PART)[None, :]


@triton.jit
def _largest_of(values: tl.tensor, PART: tl.constexpr, PARTS: tl.constexpr) -> tl.tensor:
    """The largest of every ``PART`` of the values, which are positive."""
    if PART > 1:
        values = tl.max(tl.where(_members_of(PART, PARTS, values.shape[0]), values[None, :], 0), 1)
    return values


@triton.jit
def _sum_of(values: tl.tensor, PART: tl.constexpr, PARTS: tl.constexpr) -> tl.tensor:
    """The sum of every ``PART`` of the values."""
    if PART > 1:
        values = tl.sum(tl.where(_members_of(PART, PARTS, values.shape[0]), values[None, :], 0), 1)
    return values


@triton.jit
def _spread(values: tl.tensor, PART: tl.constexpr, ROWS: tl.constexpr) -> tl.tensor:
    """Each value for every one of its ``PART`` rows."""
    if PART > 1:
        values = tl.sum(tl.where(_members_of(PART, values.shape[0], ROWS), values[:, None], 0), 0)
    return values


@triton.jit
def _rotate_quantize_tile(
    source: tl.tuple,
    factors: tl.tuple,
    target: tl.tuple,
    tile: tl.tensor,
    tokens: tl.tensor,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    FACTOR: tl.constexpr,
    MEMBERS: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
) -> tl.tensor:
    """One tile of :func:`rotate_quantize`; returns the largest magnitude of each of its rows.

    A scale is that of some rows of a token, a segment, or of some pieces of a row, of which several lie abreast.
    """
    code_ptr, scale_ptr, token_sum_ptr = target
    pieces = transformed(source, factors, tile, tokens, MEMBERS, WIDTH, TOKENS, ROWS, PIECE)
    SEGMENT: tl.constexpr = BLOCK // WIDTH if BLOCK > WIDTH else 1
    ABREAST: tl.constexpr = WIDTH // BLOCK if BLOCK < WIDTH else 1
    PIECES: tl.constexpr = len(pieces) // ABREAST
    PER_TOKEN: tl.constexpr = MEMBERS // SEGMENT
    SEGMENTS: tl.constexpr = ROWS if SEGMENT == 1 else triton.next_power_of_2(TOKENS * PER_TOKEN)
    SLOTS: tl.constexpr = SEGMENTS if PER_TOKEN == 1 else triton.next_power_of_2(TOKENS)
    token, member, held = rows_of(tile, tokens, MEMBERS, TOKENS, ROWS)
    column = tl.arange(0, PIECE)
    code_ptr += ((token * MEMBERS + member) * WIDTH)[:, None] + column[None, :]
    inside = held[:, None] & (column < WIDTH)[None, :] if WIDTH < PIECE else held[:, None]
    token, segment, used = rows_of(tile, tokens, PER_TOKEN, TOKENS, SEGMENTS)
    scale_ptr += (token * PER_TOKEN + segment) * ABREAST
    peaks = tl.zeros((ROWS,), tl.int32)
    weighted = tl.zeros((SEGMENTS,), tl.float32)
    for block in tl.static_range(ABREAST):
        largest = tl.zeros((ROWS, PIECE), tl.int32)
        for i in tl.static_range(block * PIECES, (block + 1) * PIECES):
            largest = tl.maximum(largest, magnitude(pieces[i]))
        largest = tl.max(largest, 1)
        scale = scale_of(_largest_of(largest, SEGMENT, SEGMENTS).to(tl.float32, bitcast=True) * FACTOR, LIMIT)
        tl.store(scale_ptr + block, scale, mask=used)
        steps = _spread(tl.math.div_rn(tl.full(scale.shape, FACTOR, tl.float32), scale), SEGMENT, ROWS)
        total = tl.zeros((ROWS, PIECE), tl.int32)
        for i in tl.static_range(block * PIECES, (block + 1) * PIECES):
            code = code_of(tl.fma(pieces[i], steps[:, None], 12582912.0), LOW, HIGH)
            tl.store(code_ptr + i * PIECE, code.to(tl.int8), mask=inside)
            total += code
        weighted += scale * _sum_of(tl.sum(total, 1), SEGMENT, SEGMENTS).to(tl.float32)
        peaks = tl.maximum(peaks, largest)
    token, _, used = rows_of(tile, tokens, 1, TOKENS, SLOTS)
    tl.store(token_sum_ptr + token, _sum_of(weighted, PER_TOKEN, SLOTS), mask=used)
    return peaks


@triton.jit
def rotate_quantize(
    x_ptr: tl.tensor,
    code_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    token_sum_ptr: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    signs_ptr: tl.tensor,
    left_ptr: tl.tensor,
    right_ptr: tl.tensor,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    FACTOR: tl.constexpr,
    MEMBERS: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
) -> None:
    """Codes, scales and token sums of ``FACTOR · Hᵀ X H`` of each token of x; a program takes every so many-th tile.

    A value that is not finite makes its whole tile NaN, as 0 · ∞ is: a program that met one does its tiles again,
    token by token.
    """
    source = x_ptr, stride, signs_ptr
    factors = load_factors(left_ptr, right_ptr, ROWS, PIECE)
    target = code_ptr, scale_ptr, token_sum_ptr
    first, tiles, step = tl.program_id(0), tl.cdiv(tokens, TOKENS), tl.num_programs(0)
    peaks = tl.zeros((ROWS,), tl.int32)
    for tile in tl.range(first, tiles, step):
        of_rows = _rotate_quantize_tile(
            source, factors, target, tile, tokens, BLOCK, LIMIT, LOW, HIGH, FACTOR, MEMBERS, WIDTH, TOKENS, ROWS, PIECE
        )
        peaks = tl.maximum(peaks, of_rows)
    if TOKENS > 1 and left_ptr is not None:  # noqa: SIM102
        if tl.max(peaks, 0) >= 0x7F800000:
            tl.debug_barrier()
            for tile in tl.range(first, tiles, step):
                for i in tl.range(TOKENS, num_stages=1):
                    token = tile * TOKENS + i
                    _rotate_quantize_tile(
                        source,
                        factors,
                        target,
                        token,
                        tokens,
                        BLOCK,
                        LIMIT,
                        LOW,
                        HIGH,
                        FACTOR,
                        MEMBERS,
                        WIDTH,
                        1,
                        ROWS,
                        PIECE,
                    )
