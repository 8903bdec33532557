"""Blockwise quantization of activations as they are, and the steps that rotated ones share."""

from dataclasses import dataclass

import triton
import triton.language as tl

from dvdq_kernels.backends.triton.transform import magnitude


@dataclass(frozen=True)
class Rule:
    """What becomes of a block: ``s = x_max / limit``, codes from ``low`` to ``high``, which are None if none is past.

    Attributes:
        block: channels in a block.
        limit: what the largest value is divided by.
        signed: whether that is the value of largest magnitude with its sign, or its magnitude.
        low: least code.
        high: largest code.
    """

    block: int
    limit: float
    signed: bool
    low: int | None
    high: int | None


@triton.jit
def key_of(x: tl.tensor, RULE: tl.constexpr) -> tl.tensor:
    """Integers of 32 bits in the order of ``|x|``, NaN above all.

    If scales have a sign, that of x is the last bit, so that of two of a magnitude the negative one is the larger.
    """
    if RULE.signed:
        bits = x.to(tl.uint32, bitcast=True)
        key = (bits << 1) | (bits >> 31)
    else:
        key = magnitude(x)
    return key


@triton.jit
def value_of(key: tl.tensor, RULE: tl.constexpr) -> tl.tensor:
    """The x, or ``|x|``, of a key."""
    if RULE.signed:
        key = (key >> 1) | (key << 31)
    return key.to(tl.float32, bitcast=True)


@triton.jit
def scale_of(largest: tl.tensor, RULE: tl.constexpr) -> tl.tensor:
    """``largest / limit``, no nearer to 0 than the smallest normal number, 1 for zeros; NaN and infinity stay."""
    scale = tl.math.div_rn(largest, tl.full(largest.shape, RULE.limit, tl.float32))
    if RULE.signed:
        smallest = tl.where(largest > 0, -1.1754943508222875e-38, 1.1754943508222875e-38)
        scale = tl.where(tl.abs(scale) < 1.1754943508222875e-38, smallest, scale)
    else:
        scale = tl.where(scale < 1.1754943508222875e-38, 1.1754943508222875e-38, scale)
    return tl.where(largest == 0, 1.0, scale)


@triton.jit
def code_of(biased: tl.tensor, RULE: tl.constexpr) -> tl.tensor:
    """The integer n of a float32 that is ``1.5 · 2^23 + n``, clamped.

    Such numbers are one apart, so the sum of a value and 1.5 · 2^23 is rounded to a whole number, half to even.
    """
    code = biased.to(tl.int32, bitcast=True) - 0x4B400000
    return code if RULE.low is None else tl.minimum(tl.maximum(code, RULE.low), RULE.high)


@triton.jit
def _quotient(x: tl.tensor, scale: tl.tensor, reciprocal: tl.tensor) -> tl.tensor:
    """``x / scale``, correctly rounded (Markstein): by its second turn the quotient is at most an ulp off.

    A division a value would take twice the instructions, of which memory leaves time for about thirty.
    """
    quotient = x * reciprocal
    quotient = tl.fma(tl.fma(-quotient, scale, x), reciprocal, quotient)
    return tl.fma(tl.fma(-quotient, scale, x), reciprocal, quotient)


@triton.jit
def quantize(
    x_ptr: tl.tensor,
    code_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    token_sum_ptr: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    RULE: tl.constexpr,
    BLOCKS: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:
    """``v = clamp(round(x / s))`` with the scale s of each block, and ``Σ_blocks s Σ v`` of each token.

    A program takes ``TOKENS`` tokens, which are ``stride`` apart, of ``BLOCKS`` blocks each.
    """
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    block = tl.arange(0, triton.next_power_of_2(BLOCKS))
    channel = tl.arange(0, triton.next_power_of_2(RULE.block))
    has_block = (token < tokens)[:, None] & (block < BLOCKS)[None, :]
    inside = has_block[:, :, None] & (channel < RULE.block)[None, None, :]
    at = (block * RULE.block)[None, :, None] + channel[None, None, :]
    x = tl.load(x_ptr + (token * stride)[:, None, None] + at, mask=inside, other=0).to(tl.float32)
    scale = scale_of(value_of(tl.max(key_of(x, RULE), 2), RULE), RULE)
    reciprocal = tl.math.div_rn(tl.full(scale.shape, 1.0, tl.float32), scale)
    code = code_of(_quotient(x, scale[:, :, None], reciprocal[:, :, None]) + 12582912.0, RULE)
    tl.store(code_ptr + (token * (BLOCKS * RULE.block))[:, None, None] + at, code.to(tl.int8), mask=inside)
    tl.store(scale_ptr + (token * BLOCKS)[:, None] + block[None, :], scale, mask=has_block)
    token_sum = tl.sum(scale * tl.sum(code, 2).to(tl.float32), 1)
    tl.store(token_sum_ptr + token, token_sum, mask=token < tokens)
