"""Laws of the affine grid (Eq. 1-2), over any float32 values: huge, tiny, denormal, tied, constant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvdq_reference.oracle.affine import MAX_ZERO, Grid, dequantize, minmax_grid, quantize
from dvdq_reference.oracle.bounds import rounding
from dvdq_reference.oracle.inputs import FLOAT32_TINY

BITS = st.integers(2, 8)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHTS = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=FLOAT32)


@given(WEIGHTS, BITS, st.booleans())
def test_rounding_is_at_most_half_a_step(weight, bits, symmetric):
    grid = minmax_grid(weight, bits, symmetric=symmetric)
    assert (np.abs(dequantize(quantize(weight, grid), grid) - weight) <= rounding(grid, weight)).all()


@given(WEIGHTS, BITS, st.booleans())
def test_quantizing_what_was_dequantized_changes_nothing(weight, bits, symmetric):
    grid = minmax_grid(weight, bits, symmetric=symmetric)
    codes = quantize(weight, grid)
    np.testing.assert_array_equal(quantize(dequantize(codes, grid), grid), codes)


@given(WEIGHTS, BITS, st.booleans())
def test_a_grid_can_be_stored(weight, bits, symmetric):
    grid = minmax_grid(weight, bits, symmetric=symmetric)
    assert (grid.scale.astype(np.float32) >= FLOAT32_TINY).all()
    assert np.isfinite(grid.scale.astype(np.float32)).all()
    assert (np.abs(grid.zero) <= MAX_ZERO).all()
    codes = quantize(weight, grid)
    assert codes.min() >= 0
    assert codes.max() <= 2**bits - 1


@given(st.sampled_from([1.0, -1.0, 1e30, -1e30, 1e-30, -1e-30, 3.0, -0.1]), BITS, st.integers(1, 5), st.integers(1, 3))
def test_a_constant_row_is_exact(value, bits, columns, rows):
    weight = np.full((rows, columns), value)
    grid = minmax_grid(weight, bits)
    assert (grid.scale == abs(value)).all()
    np.testing.assert_array_equal(dequantize(quantize(weight, grid), grid), weight)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_zero_row_has_scale_one(symmetric):
    grid = minmax_grid(np.zeros((2, 4)), 4, symmetric=symmetric)
    assert (grid.scale == 1.0).all()
    assert (grid.zero == (8 if symmetric else 0)).all()
    np.testing.assert_array_equal(dequantize(quantize(np.zeros((2, 4)), grid), grid), 0.0)


def test_a_denormal_row_keeps_a_normal_scale():
    weight = np.array([[1e-40, 1e-40], [-1e-40, 2e-40]])
    grid = minmax_grid(weight)
    assert (grid.scale == FLOAT32_TINY).all()
    np.testing.assert_array_equal(quantize(weight, grid) - grid.zero, 0)


def test_values_far_from_zero_keep_an_int16_zero_point():
    grid = minmax_grid([[1.0, 1.0 + 1e-9]])
    assert grid.zero.item() == -MAX_ZERO
    assert grid.scale.item() == (1.0 + 1e-9) / MAX_ZERO


def test_ties_round_to_even():
    grid = Grid(np.array([[2.0]]), np.array([[3]]), 4)
    np.testing.assert_array_equal(quantize([[-3.0, -1.0, 1.0, 3.0, 5.0]], grid), [[1, 3, 3, 5, 5]])


def test_values_beyond_the_grid_are_clamped():
    grid = Grid(np.array([[1e-30]]), np.array([[3]]), 3)
    np.testing.assert_array_equal(quantize([[-1e30, 0.0, 1e30]], grid), [[0, 3, 7]])


def test_a_symmetric_grid_by_hand():
    grid = minmax_grid([[-14.0, 3.0, 7.0]], 4, symmetric=True)
    assert (grid.scale.item(), grid.zero.item()) == (2.0, 8)
    np.testing.assert_array_equal(quantize([[-14.0, 3.0, 7.0]], grid), [[1, 10, 12]])


def test_a_minmax_grid_by_hand():
    grid = minmax_grid([[-1.0, 0.25, 2.0]], 2)
    assert (grid.scale.item(), grid.zero.item()) == (1.0, 1)
    np.testing.assert_array_equal(quantize([[-1.0, 0.25, 2.0]], grid), [[0, 1, 3]])


@given(arrays(np.float64, (3, 12), elements=FLOAT32), BITS, st.sampled_from([1, 2, 3, 4, 6, 12]), st.booleans())
def test_a_group_is_a_row_of_its_own(weight, bits, size, symmetric):
    grid = minmax_grid(weight, bits, group_size=size, symmetric=symmetric)
    parts = weight.reshape(-1, size)
    alone = minmax_grid(parts, bits, symmetric=symmetric)
    np.testing.assert_array_equal(grid.scale.reshape(-1, 1), alone.scale)
    np.testing.assert_array_equal(grid.zero.reshape(-1, 1), alone.zero)
    np.testing.assert_array_equal(quantize(weight, grid).reshape(parts.shape), quantize(parts, alone))
