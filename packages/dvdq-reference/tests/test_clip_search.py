"""Laws of QuaRot's clip search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dvdq_reference.oracle.affine import minmax_grid
from dvdq_reference.oracle.clip_search import STEPS, clip_error, search_clip, shrunk
from dvdq_reference.oracle.inputs import FLOAT32_TINY

BITS = st.integers(2, 8)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHTS = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=FLOAT32)


@given(WEIGHTS, BITS)
def test_no_step_leaves_less_error(weight, bits):
    found, start = search_clip(weight, bits), minmax_grid(weight, bits, symmetric=True)
    errors = np.stack([clip_error(weight, shrunk(start, step)) for step in range(STEPS)])
    np.testing.assert_array_equal(clip_error(weight, found), errors.min(axis=0))
    np.testing.assert_array_equal(found.scale, shrunk(start, errors.argmin(axis=0)).scale)


@given(WEIGHTS, BITS)
def test_a_grid_can_be_stored(weight, bits):
    grid = search_clip(weight, bits)
    assert (grid.scale.astype(np.float32) >= FLOAT32_TINY).all()
    assert (grid.zero == 2 ** (bits - 1)).all()


@given(arrays(np.float64, (3, 12), elements=FLOAT32), BITS, st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_a_group_is_a_row_of_its_own(weight, bits, size):
    grid = search_clip(weight, bits, group_size=size)
    alone = search_clip(weight.reshape(-1, size), bits)
    assert grid.scale.shape == (3, 12 // size)
    np.testing.assert_array_equal(grid.scale.reshape(-1, 1), alone.scale)


def test_the_error_by_hand():
    # Δ = 2, codes 12 and 9: Ŵ = 8 and 2.
    grid = shrunk(minmax_grid([[14.0, 1.5]], 4, symmetric=True), 0)
    assert grid.scale.item() == 2.0
    assert clip_error([[9.0, 1.5]], grid).item() == pytest.approx(1.0 + 0.5**2.4)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_the_first_of_equals_is_kept(value):
    """Zeros have no error in any grid, and seven steps of one none in the first."""
    assert search_clip(np.full((1, 5), value), 4).scale.item() == 1.0
