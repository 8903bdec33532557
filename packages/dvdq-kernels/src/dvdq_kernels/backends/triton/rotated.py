"""Rotation and blockwise quantization in one kernel: rotated activations never leave the chip."""

import triton
import triton.language as tl

from dvdq_kernels.backends.triton.quantization import code_of, key_of, scale_of, value_of
from dvdq_kernels.backends.triton.transform import layout, load_factors, parts_of, transformed


@triton.jit
def _lies_in(PART: tl.constexpr, PARTS: tl.constexpr, COUNT: tl.constexpr) -> tl.tensor:
    """Which of ``PARTS`` parts, of ``PART`` each, has which of ``COUNT`` values, bool ``[PARTS, COUNT]``."""
    return tl.arange(0, PARTS)[:, None] == (tl.arange(0, COUNT) // PART)[None, :]


@triton.jit
def _parted(values: tl.tensor, PART: tl.constexpr, PARTS: tl.constexpr) -> tl.tensor:
    """A matrix of a row a part, with its ``PART`` values and perhaps zeros."""
    if PART == 1:
        parted = values[:, None]
    elif values.shape[0] == PART * PARTS:
        parted = values.reshape(PARTS, PART)
    else:
        parted = tl.where(_lies_in(PART, PARTS, values.shape[0]), values[None, :], 0)
    return parted


@triton.jit
def _repeated(values: tl.tensor, PART: tl.constexpr, COUNT: tl.constexpr) -> tl.tensor:
    """Every value ``PART`` times, ``COUNT`` in all."""
    PARTS: tl.constexpr = values.shape[0]
    if PART == 1:
        repeated = values
    elif COUNT == PART * PARTS:
        repeated = tl.broadcast_to(values[:, None], (PARTS, PART)).reshape(COUNT)
    else:
        repeated = tl.sum(tl.where(_lies_in(PART, PARTS, COUNT), values[:, None], 0), 0)
    return repeated


@triton.jit
def _largest_in_rows(pieces: tl.tuple, BEGIN: tl.constexpr, COUNT: tl.constexpr, RULE: tl.constexpr) -> tl.tensor:
    """The largest key in each row of some pieces."""
    largest = key_of(pieces[BEGIN], RULE)
    for i in tl.static_range(BEGIN + 1, BEGIN + COUNT):
        largest = tl.maximum(largest, key_of(pieces[i], RULE))
    return tl.max(largest, 1)


@triton.jit
def _quantize_rows(
    pieces: tl.tuple,
    largest_elsewhere: tl.tensor,
    count_elsewhere: tl.tensor,
    target: tl.tuple,
    tile: tl.tensor,
    tokens: tl.tensor,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    FACTOR: tl.constexpr,
    RULE: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tuple:
    """Writes codes and scales of ``ROWS`` rows of a tile.

    A block is a segment of some rows of a token, or it is some pieces of a row, in which several lie abreast. What is
    elsewhere belongs to the only segment, if there is anything.

    Returns:
        ``s Σ v`` of each segment, ``Σ v`` of each segment in the last of the blocks abreast, and the largest key in
        each row.
    """
    code_ptr, scale_ptr, _ = target
    SEGMENT: tl.constexpr = max(RULE.block // TILE.width, 1)
    ABREAST: tl.constexpr = max(TILE.width // RULE.block, 1)
    COUNT: tl.constexpr = len(pieces) // ABREAST
    PER_TOKEN: tl.constexpr = TILE.members // SEGMENT
    HELD: tl.constexpr = min(TILE.tokens * TILE.members - FIRST, ROWS)
    SEGMENTS: tl.constexpr = ROWS if SEGMENT == 1 else triton.next_power_of_2(triton.cdiv(HELD, SEGMENT))
    at, channel, inside = layout(tile, tokens, TILE.members * TILE.width, FIRST, ROWS, TILE)
    token, segment, used = parts_of(tile, tokens, TILE.tokens, PER_TOKEN, FIRST // SEGMENT, SEGMENTS)
    scale_ptr += (token * PER_TOKEN + segment) * ABREAST
    peaks = key_of(tl.zeros((ROWS,), tl.float32), RULE)
    weighted = tl.zeros((SEGMENTS,), tl.float32)
    for block in tl.static_range(ABREAST):
        in_rows = _largest_in_rows(pieces, block * COUNT, COUNT, RULE)
        peaks = tl.maximum(peaks, in_rows)
        largest = tl.maximum(tl.max(_parted(in_rows, SEGMENT, SEGMENTS), 1), largest_elsewhere)
        scale = scale_of(value_of(largest, RULE) * FACTOR, RULE)
        tl.store(scale_ptr + block, scale, mask=used)
        steps = _repeated(tl.math.div_rn(tl.full(scale.shape, FACTOR, tl.float32), scale), SEGMENT, ROWS)
        total = tl.zeros(pieces[0].shape, tl.int32)
        for i in tl.static_range(block * COUNT, (block + 1) * COUNT):
            code = code_of(tl.fma(pieces[i], steps[:, None], 12582912.0), RULE)
            tl.store(code_ptr + (at + channel) + i * TILE.piece, code.to(tl.int8), mask=inside)
            total += code
        count = tl.sum(_parted(tl.sum(total, 1), SEGMENT, SEGMENTS), 1) + count_elsewhere
        weighted += scale * count.to(tl.float32)
    return weighted, count, peaks


@triton.jit
def _rotate_quantize_tile(
    source: tl.tuple,
    factors: tl.tuple,
    target: tl.tuple,
    tile: tl.tensor,
    tokens: tl.tensor,
    FACTOR: tl.constexpr,
    RULE: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """One tile of :func:`rotate_quantize`; returns the largest key in each of its rows."""
    upper, lower = transformed(source, factors, tile, tokens, TILE)
    ROWS: tl.constexpr = TILE.rows
    LOWER: tl.constexpr = TILE.lower
    PER_TOKEN: tl.constexpr = TILE.members // max(RULE.block // TILE.width, 1)
    if LOWER and PER_TOKEN == 1:
        above = tl.max(_largest_in_rows(upper, 0, len(upper), RULE), 0)
        below = tl.max(_largest_in_rows(lower, 0, len(lower), RULE), 0)
        _, count, _ = _quantize_rows(lower, above, 0, target, tile, tokens, ROWS, LOWER, FACTOR, RULE, TILE)
        weighted, _, peaks = _quantize_rows(upper, below, count, target, tile, tokens, 0, ROWS, FACTOR, RULE, TILE)
    else:
        weighted, _, peaks = _quantize_rows(upper, 0, 0, target, tile, tokens, 0, ROWS, FACTOR, RULE, TILE)
    SLOTS: tl.constexpr = weighted.shape[0] if PER_TOKEN == 1 else triton.next_power_of_2(TILE.tokens)
    token_sum = tl.sum(_parted(weighted, PER_TOKEN, SLOTS), 1)
    if LOWER and PER_TOKEN > 1:
        weighted, _, _ = _quantize_rows(lower, 0, 0, target, tile, tokens, ROWS, LOWER, FACTOR, RULE, TILE)
        token_sum += tl.sum(weighted, 0)
    token, _, used = parts_of(tile, tokens, TILE.tokens, 1, 0, SLOTS)
    tl.store(target[2] + token, token_sum, mask=used)
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
    FACTOR: tl.constexpr,
    RULE: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Codes, scales and token sums of ``FACTOR · Hᵀ X H`` of each token of x; a program takes every so many-th tile.

    A value that is not finite makes its whole tile NaN, as 0 · ∞ is: a program that met one does its tiles again,
    token by token.
    """
    source = x_ptr, stride, signs_ptr
    factors = load_factors(left_ptr, right_ptr, TILE)
    target = code_ptr, scale_ptr, token_sum_ptr
    first, tiles, step = tl.program_id(0), tl.cdiv(tokens, TILE.tokens), tl.num_programs(0)
    ROWS: tl.constexpr = TILE.rows
    peaks = key_of(tl.zeros((ROWS,), tl.float32), RULE)
    for tile in tl.range(first, tiles, step):
        in_rows = _rotate_quantize_tile(source, factors, target, tile, tokens, FACTOR, RULE, TILE)
        peaks = tl.maximum(peaks, in_rows)
    if TILE.tokens > 1 and left_ptr is not None:  # noqa: SIM102
        if tl.max(peaks, 0) >= (0xFF000000 if RULE.signed else 0x7F800000):
            tl.debug_barrier()
            ALONE: tl.constexpr = TILE.of_one_token()
            for tile in tl.range(first, tiles, step):
                for i in tl.range(TILE.tokens, num_stages=1):
                    token = tile * TILE.tokens + i
                    _rotate_quantize_tile(source, factors, target, token, tokens, FACTOR, RULE, ALONE)
