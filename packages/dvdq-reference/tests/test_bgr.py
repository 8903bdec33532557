"""Laws of BGR (Alg. 1)."""

from itertools import pairwise
from math import fsum

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvdq_reference.oracle.affine import dequantize, minmax_grid, quantize
from dvdq_reference.oracle.bgr import bounded_grid, refine, refine_grid, refinement
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.inputs import FLOAT32_TINY

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 12))
FEW = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e-30, 1e-40, 3.0])
HOSTILE = st.one_of(arrays(np.float64, SHAPES, elements=FLOAT32), arrays(np.float64, SHAPES, elements=FEW))
BITS = st.integers(2, 8)
SEEDS = st.integers(0, 2**32 - 1)


def squared_error(weight, codes, grid):
    """Of each row, correctly rounded."""
    difference = weight - dequantize(codes, grid)
    return np.array([fsum(row) for row in np.square(difference)])


def summed(weight):
    """Relative error of a float64 sum of squares of this many terms."""
    return 1 + gamma(weight.shape[1] + 2, 2.0**-53)


def gaussian(seed, rows=3, columns=48):
    return np.random.default_rng(seed).normal(size=(rows, columns))


@given(HOSTILE, BITS)
def test_never_worse_than_minmax_in_any_row(weight, bits):
    result = refine_grid(weight, bits, num_bounds=4)
    start = minmax_grid(weight, bits)
    before = squared_error(weight, quantize(weight, start), start)
    after = squared_error(weight, result.codes, result.grid)
    assert (after <= before * summed(weight)).all()


@given(HOSTILE, BITS)
def test_the_error_is_that_of_the_codes(weight, bits):
    result = refine_grid(weight, bits, num_bounds=3)
    error = squared_error(weight, result.codes, result.grid)
    assert (np.abs(result.error[:, 0] - error) <= error * (summed(weight) - 1)).all()
    np.testing.assert_array_equal(result.codes, quantize(weight, result.grid))


@given(HOSTILE, BITS)
def test_a_grid_can_be_stored(weight, bits):
    result = refine_grid(weight, bits, num_bounds=4)
    assert (result.scale >= FLOAT32_TINY).all()
    assert np.isfinite(result.scale.astype(np.float32)).all()
    assert (np.abs(result.zero) < 2**15).all()


@given(SEEDS, BITS, st.floats(1e-3, 10.0), st.integers(-20, 300))
def test_refinement_never_raises_the_error(seed, bits, scale, zero):
    values = gaussian(seed, 1)[0]
    start = np.clip(np.rint(values / scale) + zero, 0, 2**bits - 1)
    before = fsum(np.square(values - scale * (start - zero)))
    final, offset, error = refine(values, scale, zero, bits, 0.0)
    assert final > 0
    assert 0 <= offset < 2**bits or offset == zero
    assert error <= before * (1 + gamma(values.size + 2, 2.0**-53))


@given(SEEDS, BITS)
def test_a_smaller_tolerance_never_leaves_more_error(seed, bits):
    values = np.sort(gaussian(seed, 1)[0])
    start = bounded_grid(values, 0.2, bits)
    errors = [refine(values, *start, bits, tolerance)[2] for tolerance in (1.0, 1e-1, 1e-3, 0.0)]
    assert errors == sorted(errors, reverse=True)


@given(SEEDS, st.integers(2, 4), st.floats(0.0, 0.45))
def test_eq_4_and_5_are_least_squares(seed, bits, shrink):
    values = gaussian(seed, 1)[0]
    scale, zero = bounded_grid(values, shrink, bits)
    codes = np.clip(np.rint(values / scale) + zero, 0, 2**bits - 1).astype(np.int64)
    new_scale, new_zero = refinement(values, codes, scale, zero, bits)

    def error(scale, zero):
        return float(np.square(values - scale * (codes - zero)).sum())

    assert all(error(new_scale, zero) < error(new_scale * factor, zero) for factor in (0.99, 1.01))
    others = [z for z in (new_zero - 1, new_zero + 1) if 0 <= z < 2**bits]
    assert all(error(new_scale, new_zero) <= error(new_scale, z) for z in others)


@given(SEEDS, BITS, st.integers(-60, 60))
def test_scaling_a_row_scales_its_grid(seed, bits, exponent):
    """By powers of two, for which float64 is exact."""
    weight, factor = gaussian(seed), 2.0**exponent
    one, other = refine_grid(weight, bits, num_bounds=5), refine_grid(weight * factor, bits, num_bounds=5)
    np.testing.assert_array_equal(other.scale, one.scale * factor)
    np.testing.assert_array_equal(other.zero, one.zero)
    np.testing.assert_array_equal(other.codes, one.codes)
    np.testing.assert_array_equal(other.error, one.error * factor**2)


@given(SEEDS, BITS)
def test_permuting_a_row_permutes_its_codes(seed, bits):
    weight = gaussian(seed)
    order = np.random.default_rng(seed + 1).permutation(weight.shape[1])
    one, other = refine_grid(weight, bits, num_bounds=5), refine_grid(weight[:, order], bits, num_bounds=5)
    np.testing.assert_array_equal(other.scale, one.scale)
    np.testing.assert_array_equal(other.zero, one.zero)
    np.testing.assert_array_equal(other.error, one.error)
    np.testing.assert_array_equal(other.codes, one.codes[:, order])


@given(SEEDS, BITS, st.sampled_from([6, 16, 48]))
def test_a_group_is_a_row_of_its_own(seed, bits, size):
    weight = gaussian(seed, 2)
    whole = refine_grid(weight, bits, num_bounds=4, group_size=size)
    alone = refine_grid(weight.reshape(-1, size), bits, num_bounds=4)
    assert whole.scale.shape == (2, 48 // size)
    np.testing.assert_array_equal(whole.scale.reshape(-1, 1), alone.scale)
    np.testing.assert_array_equal(whole.error.reshape(-1, 1), alone.error)
    np.testing.assert_array_equal(whole.codes.reshape(-1, size), alone.codes)


@given(SEEDS)
def test_more_bounds_that_include_the_old_ones_never_leave_more_error(seed):
    weight = gaussian(seed)
    errors = [refine_grid(weight, num_bounds=n).error for n in (1, 2, 4, 8)]
    assert all((more <= fewer).all() for fewer, more in pairwise(errors))


@given(SEEDS, st.integers(1, 6))
def test_one_step_for_the_matrix_is_the_best_single_step(seed, num_bounds):
    weight = gaussian(seed)
    rows = np.sort(weight, axis=1)
    totals = [
        sum(refine(row, *bounded_grid(row, i / (2 * num_bounds), 4), 4, 1e-3)[2] for row in rows)
        for i in range(num_bounds)
    ]
    matrix = refine_grid(weight, num_bounds=num_bounds, select="matrix", tolerance=1e-3)
    row = refine_grid(weight, num_bounds=num_bounds, select="row", tolerance=1e-3)
    assert matrix.error.sum() == pytest.approx(min(totals), rel=gamma(len(weight), 2.0**-53), abs=0.0)
    assert (row.error <= matrix.error).all()


@given(arrays(np.float64, (1, 9), elements=st.sampled_from([-2.0, 0.5, 7.0])), st.integers(3, 8))
def test_few_distinct_values_are_nearly_exact(weight, bits):
    """Two values lie on a min-max grid's ends, up to the rounding of its zero-point; one is exact."""
    result = refine_grid(weight, bits)
    if len(np.unique(weight)) == 1:
        assert result.error.item() == 0.0
    else:
        assert result.error.item() <= weight.size * (result.scale.item() / 2) ** 2 * summed(weight)


@given(SEEDS)
def test_a_gaussian_row_gains(seed):
    weight = gaussian(seed, 4, 512)
    start = minmax_grid(weight)
    before = squared_error(weight, quantize(weight, start), start)
    assume((before > 0).all())
    assert refine_grid(weight).error.sum() < 0.9 * before.sum()


def test_step_zero_is_the_minmax_grid():
    values = gaussian(3, 1)
    grid = minmax_grid(values)
    assert bounded_grid(values[0], 0.0, 4) == (grid.scale.item(), grid.zero.item())


def test_shrinking_cuts_both_ends():
    scale, zero = bounded_grid(np.array([-4.0, 0.0, 12.0]), 0.25, 4)
    assert (scale, zero) == (8 / 15, 0)


def test_a_step_that_is_not_positive_keeps_the_scale():
    values, codes = np.array([1.0, -1.0]), np.array([0, 15])
    assert refinement(values, codes, 0.25, 7, 4)[0] == 0.25
