"""Laws of rounding with error feedback: what it leaves of the output's error, and where it is rounding to nearest."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dvdq_reference.oracle.affine import Grid, dequantize, minmax_grid, quantize
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.feedback import damped, moments_in_basis, output_error, round_with_feedback, second_moments
from dvdq_reference.oracle.gaussian import clip_error
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.recipe import weight_codes
from dvdq_reference.oracle.smoothing import channel_absmax, smooth, smoothing_factor
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import FEEDBACK_DAMPING, Rotation, Smoothing, WeightRule

SEEDS = st.integers(0, 2**32 - 1)
IN = 24
RULE = WeightRule(4, "minmax", 12, rounding="feedback")


def data(seed, rank=IN, spread=1.0):
    """Activations whose channels have ``rank`` causes of unlike strength, and weights."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(4 * IN, rank)) * np.exp(spread * rng.normal(size=rank))
    return causes @ rng.normal(size=(rank, IN)), rng.normal(size=(5, IN))


def wide_grid(weight, seed):
    """Eight bits, of which the weights take up a sixteenth: no code is clipped, as far as errors may carry them."""
    rng = np.random.default_rng(seed)
    scale = np.abs(weight).max() / 8 * np.exp(0.5 * rng.normal(size=(len(weight), 2)))
    return Grid(scale, np.full(scale.shape, 128), 8)


@given(SEEDS, st.floats(1e-3, 1e3))
def test_channels_that_know_nothing_of_each_other_are_rounded_to_nearest(seed, power):
    _, w = data(seed)
    grid = minmax_grid(w, 4, group_size=12)
    moments = power * np.eye(IN)
    np.testing.assert_array_equal(round_with_feedback(w, grid, moments), quantize(w, grid))
    uneven = np.diag(np.random.default_rng(seed).uniform(0, power, IN))
    np.testing.assert_array_equal(round_with_feedback(w, grid, uneven), quantize(w, grid))


@given(SEEDS)
def test_weights_on_the_grid_stay(seed):
    x, w = data(seed)
    grid = minmax_grid(w, 4, group_size=12)
    codes = quantize(w, grid)
    np.testing.assert_array_equal(round_with_feedback(dequantize(codes, grid), grid, second_moments(x)), codes)


@given(SEEDS, st.integers(2, IN), st.floats(0.0, 2.0))
def test_what_is_left_is_half_a_step_of_what_later_channels_cannot_explain(seed, rank, spread):
    """``δ H δᵀ = Σ ε_j²/U_jj² <= Σ Δ_j²/(4 U_jj²)``, with H as it is damped, if no code is clipped."""
    x, w = data(seed, rank, spread)
    grid, moments = wide_grid(w, seed), second_moments(x)
    codes = round_with_feedback(w, grid, moments)
    assume(codes.min() > 0 and codes.max() < 255)
    h = damped(moments)
    unexplained = 1 / np.diag(np.linalg.cholesky(np.linalg.inv(h)).T) ** 2
    # An inverse and a factor of it have the error of float64 times the matrix's condition.
    slack = IN**2 * np.linalg.cond(h) * 2.0**-53
    assert (unexplained <= np.diag(h) * (1 + slack)).all()
    scale, _ = grid.per_channel("test", w.shape)
    left, bound = output_error(w, codes, grid, h), (scale**2 / 4) @ unexplained
    assert (left <= bound * (1 + slack)).all()
    # The bound on plain rounding, which knows no more than the diagonal.
    assert (bound <= (scale**2 / 4) @ np.diag(h) * (1 + slack)).all()


@pytest.mark.parametrize(("rank", "most"), [(IN, 0.9), (4, 0.35)])
def test_it_leaves_less_of_the_outputs_error_than_nearest(rank, most):
    """With the same grid, on average over models; the more channels have in common, the less."""
    ratios = []
    for seed in range(40):
        x, w = data(seed, rank)
        moments = second_moments(x)
        codes, grid = weight_codes(w, RULE, moments)
        nearest, same = weight_codes(w, dataclasses.replace(RULE, rounding="nearest"))
        np.testing.assert_array_equal(grid.scale, same.scale)
        y = x @ (w - dequantize(codes, grid)).T
        np.testing.assert_allclose((y**2).mean(axis=0), output_error(w, codes, grid, moments), rtol=1e-9)
        ratios.append(output_error(w, codes, grid, moments).sum() / output_error(w, nearest, grid, moments).sum())
    assert np.mean(ratios) < most


@given(SEEDS, st.integers(-20, 20))
def test_how_large_activations_are_does_not_matter(seed, power):
    x, w = data(seed)
    grid, moments = minmax_grid(w), second_moments(x)
    np.testing.assert_array_equal(
        round_with_feedback(w, grid, moments * 4.0**power), round_with_feedback(w, grid, moments)
    )


@given(SEEDS)
def test_the_other_form_of_it(seed):
    """QuIP's: ``w_j + Σ_{i<j} δ_i M_ij`` of ``H = M D Mᵀ`` is rounded, M from a factor of H itself."""
    x, w = data(seed)
    grid, h = minmax_grid(w), damped(second_moments(x))
    upper = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    m = upper / np.diag(upper)
    codes = round_with_feedback(w, grid, second_moments(x))
    left = w - dequantize(codes, grid)
    # Not rounding again but at the end: every target lies within half a step of what was chosen, but where it clipped.
    targets = w + left @ np.triu(m, 1)
    again = np.clip(np.rint(targets / grid.scale) + grid.zero, 0, 15)
    np.testing.assert_array_equal(codes, again)


@given(SEEDS)
def test_a_channel_without_values_is_rounded_to_nearest(seed):
    x, w = data(seed)
    x[:, [3, IN - 1]] = 0.0
    grid = minmax_grid(w)
    codes = round_with_feedback(w, grid, second_moments(x))
    np.testing.assert_array_equal(codes[:, [3, IN - 1]], quantize(w, grid)[:, [3, IN - 1]])
    nothing = round_with_feedback(w, grid, np.zeros((IN, IN)))
    np.testing.assert_array_equal(nothing, quantize(w, grid))


@pytest.mark.parametrize("rotation", [None, Rotation("full"), Rotation("full", seed=5)])
@pytest.mark.parametrize("smoothed", [False, True])
def test_moments_are_moved_into_every_basis(rotation, smoothed):
    x, w = data(0)
    factor = smoothing_factor(channel_absmax(x), w, Smoothing()) if smoothed else None
    moved = moments_in_basis(second_moments(x), factor=factor, rotation=rotation)
    there = x if factor is None else smooth(x, w, factor)[0]
    there = there if rotation is None else there @ rotation_matrix(IN, rotation)
    # Sums over tokens, and over channels on either side; |H_ij| is at most the trace.
    tolerance = gamma(len(x) + 2 * IN + 6, 2.0**-53) * IN * np.trace(second_moments(there))
    assert np.abs(moved - second_moments(there)).max() <= tolerance


def test_damping_is_about_the_noise_of_four_bits():
    """Noise of that power, spread evenly, adds itself to the diagonal."""
    share = clip_error([1.0], 4, 128, signed=True)
    assert share == pytest.approx(FEEDBACK_DAMPING, rel=0.1)


def test_bad_input():
    _, w = data(0)
    grid = minmax_grid(w)
    with pytest.raises(DvdqError, match=r"round_with_feedback: moments: expected \[24, 24\], as the weight has"):
        round_with_feedback(w, grid, np.eye(3))
    with pytest.raises(DvdqError, match="damped: moments: expected a square matrix"):
        round_with_feedback(w, grid, np.ones((24, 3)))
    with pytest.raises(DvdqError, match="channel 1: expected finite"):
        moments_in_basis([[1.0, 0.0], [np.nan, 1.0]])
    with pytest.raises(DvdqError, match="weight_codes: moments: expected what calibration records, got None"):
        weight_codes(w, RULE)
    with pytest.raises(DvdqError, match=r"recipe: weight\.rounding: expected nearest or feedback, got 'up'"):
        WeightRule(rounding="up")
