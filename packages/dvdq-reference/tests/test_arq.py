"""Laws of activation quantization (Eq. 10)."""

from math import fsum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvdq_reference.oracle.arq import dequantize, quantize_block, quantize_channel
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.inputs import FLOAT32_TINY
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.clip_factors import clip_factor
from dvdq_reference.spec.recipe import ActivationRule

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
X = arrays(np.float64, st.tuples(st.integers(1, 3), st.just(12)), elements=FLOAT32)
BITS = st.integers(2, 8)
BLOCKS = st.sampled_from([None, 1, 2, 3, 4, 6, 12])
CLIPS = st.sampled_from(["absmax", "gaussian", "signed"])
FLOAT64 = 2.0**-53


@given(X, BITS, BLOCKS, CLIPS)
def test_codes_are_in_range_and_scales_can_be_stored(x, bits, block, clip):
    codes, scale, token_sum = quantize_block(x, ActivationRule(bits, block, clip))
    low, high = signed_range(bits)
    assert codes.min() >= low
    assert codes.max() <= high
    assert (np.abs(scale) >= FLOAT32_TINY).all()
    assert clip == "signed" or (scale > 0).all()
    assert scale.shape == (len(x), 12 // (block or 12))
    assert token_sum.shape == (len(x),)


@given(X, BITS, BLOCKS)
def test_without_a_clip_rounding_is_at_most_half_a_step(x, bits, block):
    codes, scale, _ = quantize_block(x, ActivationRule(bits, block))
    step = np.repeat(scale, 12 // scale.shape[1], axis=1)
    # Half a step and the float64 rounding of the quotient, the scale and the product.
    assert (np.abs(dequantize(codes, scale) - x) <= step / 2 + gamma(4, FLOAT64) * (np.abs(x) + step)).all()


@given(X, BITS, BLOCKS, CLIPS)
def test_the_token_sum_is_that_of_the_dequantized_token(x, bits, block, clip):
    codes, scale, token_sum = quantize_block(x, ActivationRule(bits, block, clip))
    values = dequantize(codes, scale)
    exact = np.array([fsum(token) for token in values])
    assert (np.abs(token_sum - exact) <= gamma(12 + 2, FLOAT64) * np.abs(values).sum(axis=1)).all()


@given(X, BITS)
def test_a_channel_is_a_token_of_the_transpose(x, bits):
    codes, scale = quantize_channel(x, bits)
    other, other_scale, _ = quantize_block(x.T, ActivationRule(bits, None))
    np.testing.assert_array_equal(codes, other.T)
    np.testing.assert_array_equal(scale, other_scale[:, 0])


@given(st.integers(0, 2**32 - 1), BITS, st.sampled_from([None, 4, 64]))
def test_the_gaussian_clip_shrinks_the_scale_by_its_factor(seed, bits, block):
    x = np.random.default_rng(seed).normal(size=(3, 64))
    plain = quantize_block(x, ActivationRule(bits, block)).scale
    clipped = quantize_block(x, ActivationRule(bits, block, "gaussian")).scale
    np.testing.assert_allclose(clipped, plain * clip_factor(bits, block or 64), rtol=gamma(3, FLOAT64))
    quarot = quantize_block(x, ActivationRule(bits, block, "quarot")).scale
    np.testing.assert_allclose(quarot, plain * 0.9, rtol=gamma(3, FLOAT64))


@given(X, BITS, BLOCKS)
def test_with_signed_scales_the_largest_value_takes_the_code_that_has_no_opposite(x, bits, block):
    rule = ActivationRule(bits, block, "signed")
    codes, scale, _ = quantize_block(x, rule)
    parts, found = x.reshape(*scale.shape, -1), codes.reshape(*scale.shape, -1)
    largest = np.abs(parts).max(axis=2)
    # What can be stored: below, the scale is the smallest that there is, and codes are near zero.
    usual = largest / 2**bits > FLOAT32_TINY
    assert (found.min(axis=2)[usual] == -(2 ** (bits - 1))).all()
    assert (np.take_along_axis(np.abs(parts), found.argmin(axis=2)[:, :, None], 2)[:, :, 0] >= 0.5 * largest)[
        usual
    ].all()
    other, other_scale, _ = quantize_block(-x, rule)
    untied = parts.max(axis=2) != -parts.min(axis=2)
    np.testing.assert_array_equal(other_scale[untied], -scale[untied])
    np.testing.assert_array_equal(other.reshape(found.shape)[untied], found[untied])


def test_of_two_largest_values_the_negative_one_counts():
    codes, scale, _ = quantize_block([[4.0, -4.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], ActivationRule(4, None, "signed"))
    np.testing.assert_allclose(scale, [[4 / 8 * clip_factor(4, 4, signed=True)], [1.0]])
    np.testing.assert_array_equal(codes, [[7, -8, 2, 0], [0, 0, 0, 0]])


def test_a_block_by_hand():
    codes, scale, token_sum = quantize_block([[7.0, -3.5, 2.5, 0.0, 0.0, 0.0]], ActivationRule(4, 3))
    np.testing.assert_array_equal(scale, [[1.0, 1.0]])
    np.testing.assert_array_equal(codes, [[7, -4, 2, 0, 0, 0]])
    np.testing.assert_array_equal(token_sum, [5.0])


def test_clipping_uses_the_whole_signed_range():
    x = np.append(np.random.default_rng(0).normal(size=3070), [6.0, -6.0])[None]
    codes = quantize_block(x, ActivationRule(4, None, "gaussian")).codes
    assert (codes.min(), codes.max()) == (-8, 7)


@pytest.mark.parametrize("value", [1e30, -1e30, 1e-30, 1e-40])
def test_extreme_values_have_a_result(value):
    codes, scale, _ = quantize_block([[value, 0.0]], ActivationRule(4, None))
    assert abs(dequantize(codes, scale)[0, 0] - value) <= scale.item() / 2
    assert codes[0, 1] == 0
