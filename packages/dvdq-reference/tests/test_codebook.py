"""Laws of sixteen levels under two scales."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvdq_reference.oracle.codebook import decode, float8_numbers, integers, search
from dvdq_reference.spec.codebook import LEVELS
from dvdq_reference.spec.errors import DvdqError

VALUES = st.floats(-1e4, 1e4, width=32)
WEIGHTS = arrays(np.float64, st.sampled_from([(1, 16), (2, 32), (1, 48)]), elements=VALUES)


def test_the_numbers_of_float8():
    numbers = float8_numbers()
    assert len(numbers) == 126
    assert numbers[[0, 6, 7, 8, -1]].tolist() == [2**-9, 7 * 2**-9, 2**-6, 9 * 2**-9, 448.0]
    assert (np.diff(numbers) > 0).all()


def test_a_product_counts_integers():
    """r = 8: 8 · 0.980671 = 7.845 is 8, 8 · 0.052541 = 0.42 is 0, 8 · -0.155210 = -1.24 is -1; c = 0.5."""
    assert integers(8.0)[[15, 8, 6]].tolist() == [8, 0, -1]
    assert integers(448.0)[[0, 15]].tolist() == [-127, 127]
    decoded = decode(np.array([[15, 8, 6, *[15] * 13]]), np.array([[8.0]]), np.array([0.5]))
    assert decoded[0, :3].tolist() == [4.0, 0.0, -0.5]


@settings(max_examples=30)
@given(WEIGHTS)
def test_codes_are_the_nearest_and_small_scales_are_float8(weight):
    found = search(weight)
    assert np.isin(found.relative, float8_numbers()).all()
    assert (found.channel > 0).all()
    every = [np.full(weight.shape, q) for q in range(len(LEVELS))]
    errors = np.stack([np.abs(decode(q, found.relative, found.channel) - weight) for q in every])
    own = np.abs(decode(found.codes, found.relative, found.channel) - weight)
    # The search compares W / c, rounded once.
    assert (own <= errors.min(axis=0) + 4e-16 * (np.abs(weight) + 127 * found.channel[:, None])).all()


@settings(max_examples=15)
@given(WEIGHTS, st.integers(-60, 20))
def test_a_power_of_two_moves_into_the_rows_scale(weight, power):
    """But for values that are zero or next to it, for which a scale has a floor."""
    weight = np.where(np.abs(weight) < 1e-3, 1.0, weight)
    found, other = search(weight), search(weight * 2.0**power)
    np.testing.assert_array_equal(found.codes, other.codes)
    np.testing.assert_array_equal(found.relative, other.relative)
    np.testing.assert_array_equal(found.channel * 2.0**power, other.channel)


def test_rows_and_zeros():
    """A row is found by itself, and a row of zeros is decoded to zeros."""
    weight = np.random.default_rng(0).normal(size=(3, 32))
    weight[1] = 0
    found = search(weight)
    decoded = decode(found.codes, found.relative, found.channel)
    assert (decoded[1] == 0).all()
    alone = search(weight[2:])
    np.testing.assert_array_equal(alone.codes[0], found.codes[2])
    assert alone.channel[0] == found.channel[2]


def test_a_gaussian_weight_loses_seven_hundredths():
    weight = np.random.default_rng(0).normal(size=(4, 512))
    found = search(weight)
    error = np.linalg.norm(decode(found.codes, found.relative, found.channel) - weight) / np.linalg.norm(weight)
    assert 0.06 < error < 0.075


def test_a_width_that_does_not_fit_is_named():
    with pytest.raises(DvdqError, match="codebook: expected a multiple of 16 channels, got 24"):
        search(np.ones((1, 24)))
