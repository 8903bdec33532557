"""Laws of the baselines' smoothing: the product stays, the formulas are the authors'."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvdq_reference.oracle.affine import dequantize
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.smoothing import channel_absmax, quarot_weight, smooth, smoothing_factor, viditq_weight
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Rotation, Smoothing

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(["smoothquant", "vidit-q"])
ALPHAS = st.floats(0.0, 1.0)


def data(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 12)) * np.exp(2 * rng.normal(size=12)), rng.normal(size=(5, 12))


@given(SEEDS, KINDS, ALPHAS)
def test_the_product_stays(seed, kind, alpha):
    x, w = data(seed)
    x[:, 3], w[:, 5] = 0.0, 0.0
    smooth_x, smooth_w = smooth(x, w, smoothing_factor(channel_absmax(x), w, Smoothing(kind, alpha)))
    tolerance = gamma(12 + 3, 2.0**-53) * (np.abs(x) @ np.abs(w).T)
    assert (np.abs(smooth_x @ smooth_w.T - x @ w.T) <= tolerance).all()


@given(SEEDS, KINDS, ALPHAS)
def test_a_channel_without_values_keeps_factor_one(seed, kind, alpha):
    x, w = data(seed)
    x[:, 3], w[:, 5] = 0.0, 0.0
    factor = smoothing_factor(channel_absmax(x), w, Smoothing(kind, alpha))
    assert factor[3] == factor[5] == 1.0
    assert (factor > 0).all()


@given(SEEDS, ALPHAS)
def test_vidit_q_counts_alpha_from_the_other_side(seed, alpha):
    x, w = data(seed)
    x_max, w_max = channel_absmax(x), channel_absmax(w)
    mask = w_max**alpha / x_max ** (1 - alpha)
    # A few roundings of powers and a quotient, each of which NumPy's pow may miss by an ulp or two.
    np.testing.assert_allclose(1 / smoothing_factor(x_max, w, Smoothing("vidit-q", alpha)), mask, rtol=16 * 2.0**-53)


def test_smoothquant_by_hand():
    factor = smoothing_factor([16.0, 4.0], [[1.0, -4.0], [-4.0, 1.0]], Smoothing("smoothquant", 0.5))
    np.testing.assert_array_equal(factor, [2.0, 1.0])


def test_smoothquant_with_alpha_one_evens_the_activations():
    x, w = data(0)
    smooth_x, _ = smooth(x, w, smoothing_factor(channel_absmax(x), w, Smoothing("smoothquant", 1.0)))
    np.testing.assert_array_equal(channel_absmax(smooth_x), 1.0)


@given(SEEDS, st.integers(2, 8))
def test_quarot_clip_search_never_leaves_more_error(seed, bits):
    _, w = data(seed)
    rotation = Rotation("full", 1)
    rotated = w @ rotation_matrix(12, rotation)

    def error(clip_search):
        codes, grid = quarot_weight(w, rotation, bits, clip_search=clip_search)
        return (np.abs(rotated - dequantize(codes, grid)) ** 2.4).sum(axis=1), grid

    plain, plain_grid = error(False)
    searched, searched_grid = error(True)
    assert (searched <= plain).all()
    assert (searched_grid.scale <= plain_grid.scale).all()
    assert (searched_grid.scale >= 0.2 * plain_grid.scale).all()
    assert (searched_grid.zero == 2 ** (bits - 1)).all()


def test_the_clip_search_clips_a_long_tail():
    w = np.random.default_rng(0).standard_t(3, size=(4, 512))
    _, plain = quarot_weight(w, Rotation(), 3)
    _, searched = quarot_weight(w, Rotation(), 3, clip_search=True)
    assert (searched.scale < plain.scale).all()


def test_no_clip_that_was_tried_leaves_less_error():
    """Rows enough that another power of the error would choose another clip in some of them."""
    w = np.random.default_rng(1).standard_t(3, size=(32, 64))
    rotated = w @ rotation_matrix(64, Rotation())
    codes, searched = quarot_weight(w, Rotation(), 3, clip_search=True)
    _, plain = quarot_weight(w, Rotation(), 3)
    error = (np.abs(rotated - dequantize(codes, searched)) ** 2.4).sum(axis=1)
    for percent in range(100, 20, -1):
        scale = percent / 100 * plain.scale
        tried = scale * np.clip(np.rint(rotated / scale), -4, 3)
        # Two sums of 64 powers, each power off by an ulp or two.
        assert (error <= (np.abs(rotated - tried) ** 2.4).sum(axis=1) * (1 + 2 * gamma(64 + 8, 2.0**-53))).all()


@given(SEEDS)
def test_vidit_q_weight_is_smoothed_then_rotated(seed):
    x, w = data(seed)
    rotation = Rotation("full", 2)
    factor = smoothing_factor(channel_absmax(x), w, Smoothing("vidit-q", 0.5))
    codes, grid = viditq_weight(w, factor, rotation, 8)
    target = (w * factor) @ rotation_matrix(12, rotation)
    # Half a step of the symmetric grid, and the float64 rounding of the quotient.
    tolerance = grid.scale / 2 * (1 + 2**9 * 2.0**-53)
    assert (np.abs(dequantize(codes, grid) - target) <= tolerance).all()
    twice, twice_grid = viditq_weight(w, factor, rotation, 3, twice=True)
    once, once_grid = viditq_weight(w, factor, rotation, 3)
    error = [np.square(dequantize(c, g) - target).sum() for c, g in ((once, once_grid), (twice, twice_grid))]
    assert error[0] != error[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smoothing_factor([1.0, -1.0], [[1.0, 1.0]], Smoothing()), "channel 1: expected >= 0, got -1.0"),
        (
            lambda: smoothing_factor([1.0], [[1.0, 1.0]], Smoothing()),
            r"channel: expected shape \(2,\), got shape \(1,\)",
        ),
        (lambda: smoothing_factor([1.0], [[1.0]], Smoothing(alpha=2.0)), "alpha: expected 0 to 1, got 2.0"),
        (lambda: smooth([[1.0]], [[1.0]], [0.0]), "smooth: channel 0: expected a factor > 0, got 0.0"),
        (lambda: smooth([[1.0]], [[1.0, 1.0]], [1.0, 1.0]), "smooth: expected 2 channels, as the weight has, got 1"),
        (lambda: channel_absmax([[1.0], [float("inf")]]), "channel_absmax: token 1: .* got inf"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(DvdqError, match=message):
        call()
