"""H Hᵀ = I for every size that a model needs, and rotations that leave products as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.hadamard import (
    factor,
    hadamard_matrix,
    paley,
    random_signs,
    rotation_matrix,
    rotation_signs,
    sign_matrix,
)
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Rotation

SMALL = [1, 2, 4, 12, 20, 24, 28, 36, 40, 60, 64, 72, 76, 108, 128, 140, 192, 224, 256, 512, 768, 1024]
MODELS = [1536, 3072, 5120, 8960, 12288, 13824, 14336, 15360]
FLOAT64 = 2.0**-53


@pytest.mark.parametrize("n", SMALL)
def test_rows_are_orthogonal(n):
    signs = sign_matrix(n).astype(np.int64)
    assert set(np.unique(signs)) <= {-1, 1}
    np.testing.assert_array_equal(signs @ signs.T, n * np.eye(n, dtype=np.int64))
    np.testing.assert_array_equal(hadamard_matrix(n), signs / np.sqrt(n))


@pytest.mark.parametrize("n", MODELS)
def test_rows_of_a_real_size_are_orthogonal(n):
    """H = A ⊗ B is Hadamard if A and B are; that it is their product is seen on some of its rows, all columns."""
    m, k = factor(n)
    assert m * 2**k == n
    signs = sign_matrix(n)
    assert signs.shape == (n, n)
    some = np.random.default_rng(n).choice(n, 8, replace=False)
    rows = signs[some].astype(np.float32)
    products = np.concatenate([rows @ part.T.astype(np.float32) for part in np.array_split(signs, 32)], axis=1)
    expected = np.zeros((8, n))
    expected[np.arange(8), some] = n
    # Sums of up to 15360 terms ±1 are exact in float32, whose integers reach 2^24.
    np.testing.assert_array_equal(products, expected)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, 0)),
        (256, (1, 8)),
        (1536, (12, 7)),
        (3072, (12, 8)),
        (5120, (20, 8)),
        (8960, (140, 6)),
        (12288, (12, 10)),
        (13824, (108, 7)),
        (14336, (28, 9)),
        (15360, (60, 8)),
    ],
)
def test_factor_takes_the_smallest_core(n, expected):
    assert factor(n) == expected


@pytest.mark.parametrize("n", [0, -4, 3, 6, 92, 100 * 37, 2.5, True])
def test_sizes_without_a_matrix_are_refused(n):
    with pytest.raises(DvdqError, match="hadamard: expected") as caught:
        hadamard_matrix(n)
    assert caught.value.got == n


def test_paley_is_the_textbook_matrix():
    # χ mod 3 is 0, 1, -1; Q[i, j] = χ(i - j); the diagonal is I.
    np.testing.assert_array_equal(paley(4), [[1, 1, 1, 1], [-1, 1, -1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1]])


def test_the_second_construction_is_the_textbook_matrix():
    squares = {1, 3, 4, 9, 10, 12}  # modulo 13
    plus, diagonal = np.array([[1, 1], [1, -1]]), np.array([[1, -1], [-1, -1]])
    border = [diagonal] + [plus] * 13
    inside = [
        [diagonal if i == j else plus if (i - j) % 13 in squares else -plus for j in range(13)] for i in range(13)
    ]
    np.testing.assert_array_equal(paley(28), np.block([border, *([plus, *row] for row in inside)]))


def test_the_core_is_the_outer_factor():
    signs = sign_matrix(24)
    np.testing.assert_array_equal(signs[:2, :2], [[1, 1], [1, -1]])
    np.testing.assert_array_equal(signs[::2, ::2], paley(12))


@given(
    st.sampled_from([(12, "full"), (64, "full"), (40, "full"), (256, "block"), (512, "block"), (512, "regular")]),
    st.sampled_from([None, 0, 7]),
    st.integers(0, 2**32 - 1),
)
def test_a_rotated_product_is_the_plain_one(shape, seed, data):
    n, kind = shape
    r = rotation_matrix(n, Rotation(kind, None if kind == "regular" else seed))
    rng = np.random.default_rng(data)
    x, w = rng.normal(size=(3, n)), rng.normal(size=(2, n))
    # Three products of n terms in float64, on top of the rounding of 1/√n.
    tolerance = gamma(3 * n + 4, FLOAT64) * (np.abs(x) @ np.abs(r) @ np.abs(r).T @ np.abs(w).T)
    assert (np.abs((x @ r) @ (w @ r).T - x @ w.T) <= tolerance).all()


def test_a_block_rotation_stays_inside_its_blocks():
    r = rotation_matrix(512, Rotation("block"))
    assert not r[:256, 256:].any()
    np.testing.assert_array_equal(r[256:, 256:], hadamard_matrix(256))


def test_signs_come_first_and_are_the_documented_draw():
    signs = 1 - 2 * np.random.default_rng(5).integers(0, 2, size=64)
    np.testing.assert_array_equal(rotation_matrix(64, Rotation("full", 5)), np.diag(signs) @ hadamard_matrix(64))
    assert len(set(signs)) == 2
    np.testing.assert_array_equal(random_signs(64, None), 1)


@pytest.mark.parametrize("kind", ["block", "regular"])
@pytest.mark.parametrize("n", [0, 64, 300])
def test_a_block_rotation_needs_whole_blocks(n, kind):
    with pytest.raises(DvdqError, match="multiples of 256"):
        rotation_matrix(n, Rotation(kind))


def test_the_regular_matrix_is_a_kronecker_power():
    """Column for column, once each column's sum is made positive and the columns are put in order."""
    r4 = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])
    power = np.kron(np.kron(r4, r4), np.kron(r4, r4))
    ours = np.rint(16 * rotation_matrix(256, Rotation("regular"))).astype(np.int64)
    np.testing.assert_array_equal(np.abs(ours), 1)
    np.testing.assert_array_equal(np.abs(ours.sum(axis=0)), 16)
    columns = [np.unique(m * np.sign(m.sum(axis=0)), axis=1) for m in (ours, power)]
    assert columns[0].shape == (256, 256)
    np.testing.assert_array_equal(*columns)


@pytest.mark.parametrize("value", [1.0, -3.0])
def test_a_regular_rotation_spreads_a_constant_evenly(value):
    constant = np.full((1, 768), value)
    np.testing.assert_array_equal(np.abs(constant @ rotation_matrix(768, Rotation("regular"))), abs(value))
    gathered = np.zeros((1, 768))
    gathered[:, ::256] = 16 * value
    np.testing.assert_array_equal(constant @ rotation_matrix(768, Rotation("block")), gathered)


def test_regular_signs_by_hand():
    # Of four neighbours the last, of four neighbouring fours the last, and so on: the signs are a Kronecker power too.
    pair = np.array([1, 1, 1, -1])
    block = np.kron(np.kron(pair, pair), np.kron(pair, pair))
    np.testing.assert_array_equal(rotation_signs(512, Rotation("regular")), np.tile(block, 2))
