"""Laws of BGR with the scale alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvdq_reference.oracle.affine import dequantize, minmax_grid, quantize
from dvdq_reference.oracle.bgr_symmetric import refine_scale
from dvdq_reference.oracle.inputs import FLOAT32_TINY
from dvdq_reference.spec.errors import DvdqError

BITS = st.integers(2, 8)
VALUES = st.floats(-1e4, 1e4, width=32)
WEIGHTS = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=VALUES)


def error(weight, grid):
    return np.square(weight - dequantize(quantize(weight, grid), grid)).sum(axis=1)


@given(WEIGHTS, BITS)
def test_it_is_never_worse_than_minmax_and_can_be_stored(weight, bits):
    grid = refine_scale(weight, bits)
    plain = error(weight, minmax_grid(weight, bits, symmetric=True))
    # The sums of both errors are rounded, those of the search in another order.
    assert (error(weight, grid) <= plain * (1 + 1e-12) + 1e-300).all()
    assert (grid.scale.astype(np.float32) >= FLOAT32_TINY).all()
    assert (grid.zero == 2 ** (bits - 1)).all()


@given(WEIGHTS, BITS, st.integers(0, 2**32 - 1))
def test_signs_and_order_of_columns_move_into_the_codes(weight, bits, seed):
    rng = np.random.default_rng(seed)
    order, signs = rng.permutation(weight.shape[1]), rng.choice([-1, 1], weight.shape[1])
    grid, other = refine_scale(weight, bits), refine_scale(weight[:, order] * signs, bits)
    np.testing.assert_array_equal(grid.scale, other.scale)
    centred = quantize(weight, grid) - 2 ** (bits - 1)
    np.testing.assert_array_equal(
        quantize(weight[:, order] * signs, other) - 2 ** (bits - 1), centred[:, order] * signs
    )


@given(arrays(np.float64, (2, 12), elements=VALUES), BITS, st.sampled_from([1, 3, 4, 6, 12]))
def test_a_group_is_a_row_of_its_own(weight, bits, size):
    alone = refine_scale(weight.reshape(-1, size), bits)
    np.testing.assert_array_equal(refine_scale(weight, bits, group_size=size).scale.reshape(-1, 1), alone.scale)


def test_a_refinement_by_hand():
    """Codes 7, 4, 1 of the first Δ = 1: Δ' = (7 * 7 + 4 * 4.4 + 1 * 1.4) / (49 + 16 + 1), which keeps them."""
    grid = refine_scale([[7.0, -4.4, 1.4]], 4, num_bounds=1, tolerance=0.0)
    assert grid.scale.item() == pytest.approx(68 / 66)
    assert (quantize([[7.0, -4.4, 1.4]], grid) - 8).tolist() == [[7, -4, 1]]


def test_a_gaussian_row_is_clipped_where_few_values_lie():
    """Fifteen levels of about .34 σ: a third below what the largest of 4096 values asks for, and half its error."""
    weight = np.random.default_rng(0).normal(size=(8, 4096))
    grid, plain = refine_scale(weight), minmax_grid(weight, symmetric=True)
    assert error(weight, grid).sum() < 0.6 * error(weight, plain).sum()
    assert ((grid.scale > 0.3) & (grid.scale < 0.4)).all()


@pytest.mark.parametrize(("name", "value"), [("num_bounds", 0), ("tolerance", -1.0)])
def test_a_bad_parameter_is_named(name, value):
    with pytest.raises(DvdqError, match=f"refine_scale: {name}: expected at least"):
        refine_scale([[1.0]], **{name: value})
