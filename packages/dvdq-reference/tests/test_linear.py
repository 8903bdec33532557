"""The integer linear is the product of the dequantized factors, and a float32 one stays within its bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvdq_reference.oracle.affine import Grid, dequantize, minmax_grid, quantize
from dvdq_reference.oracle.arq import dequantize as dequantize_activation
from dvdq_reference.oracle.arq import quantize_block
from dvdq_reference.oracle.bounds import codes_float32, gamma, linear_float32, rotation_float32
from dvdq_reference.oracle.hadamard import factor, random_signs, rotation_matrix
from dvdq_reference.oracle.linear import quantized_linear
from dvdq_reference.spec.recipe import ActivationRule, Rotation

FLOAT64 = 2.0**-53
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([None, 3, 4, 6, 12, 24])
ROTATIONS = st.sampled_from([None, Rotation(), Rotation("full", 3)])


def layer(seed, in_features=24, bits=4, group_size=None, tokens=4, out_features=5, offset=0.0):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(tokens, in_features)), rng.normal(size=(out_features, in_features)) + offset
    grid = minmax_grid(w, bits, group_size=group_size)
    return x, quantize(w, grid), grid, rng.normal(size=out_features)


@given(
    SEEDS, st.integers(2, 8), st.integers(2, 8), SIZES, SIZES, ROTATIONS, st.sampled_from([0.0, 50.0]), st.booleans()
)
def test_it_is_the_dequantized_product(seed, bits, x_bits, group, block, rotation, offset, with_bias):
    x, codes, grid, bias = layer(seed, bits=bits, group_size=group, offset=offset)
    rule = ActivationRule(x_bits, block)
    y = quantized_linear(x, codes, grid, rule, rotation=rotation, bias=bias if with_bias else None)
    rotated = x if rotation is None else x @ rotation_matrix(24, rotation)
    v, s, _ = quantize_block(rotated, rule)
    x_hat = dequantize_activation(v, s)
    expected = x_hat @ dequantize(codes, grid).T + (bias if with_bias else 0.0)
    # Every term of either form is at most |x̂| Δ (q + |z| + 2^(b-1)); no result passes more than 24 + 12 roundings.
    scale, zero = grid.per_channel("test", codes.shape)
    terms = np.abs(x_hat) @ (scale * (codes + np.abs(zero) + 2**bits)).T + np.abs(bias)
    assert (np.abs(y - expected) <= gamma(24 + 12, FLOAT64) * terms).all()


@given(SEEDS, ROTATIONS)
def test_without_a_rule_activations_are_left_alone(seed, rotation):
    x, codes, grid, bias = layer(seed)
    rotated = x if rotation is None else x @ rotation_matrix(24, rotation)
    y = quantized_linear(x, codes, grid, None, rotation=rotation, bias=bias)
    np.testing.assert_array_equal(y, rotated @ dequantize(codes, grid).T + bias)


def test_by_hand():
    # One token, scales 1; u = q - 8 = (-7, 2), v = (7, -3); Y = 0.5 (7·-7 - 3·2 - (9 - 8) (7 - 3)) + 1.
    grid = Grid(np.array([[0.5]]), np.array([[9]]), 4)
    y = quantized_linear([[7.0, -3.0]], [[1, 10]], grid, ActivationRule(4, None), bias=[1.0])
    np.testing.assert_array_equal(y, [[0.5 * (-49 - 6 - 4) + 1.0]])


@given(SEEDS, st.integers(0, 23))
def test_unit_activations_read_the_weight_back(seed, channel):
    """The identity probe: a token that is one channel gives that column of Ŵ."""
    _, codes, grid, _ = layer(seed, group_size=6)
    x = np.zeros((1, 24))
    x[0, channel] = 7.0
    y = quantized_linear(x, codes, grid, ActivationRule(4, 4))
    weight = dequantize(codes, grid)
    scale, zero = grid.per_channel("test", codes.shape)
    # Two products and a difference, of terms no larger than 7 Δ (|q| + |z| + 8).
    tolerance = gamma(6, FLOAT64) * 7 * (scale * (codes + np.abs(zero) + 16))[:, channel]
    assert (np.abs(y[0] - 7 * weight[:, channel]) <= tolerance).all()


def fast_transform(x, rotation):
    """A float32 fast Hadamard transform: k butterflies, then the m × m core."""
    m, k = factor(x.shape[1])
    y = x.astype(np.float32) * random_signs(x.shape[1], rotation.seed).astype(np.float32)
    y = y.reshape(len(x), m, 2**k)
    for level in range(k):
        parts = y.reshape(len(x), m, -1, 2, 2**level)
        y = np.stack([parts[..., 0, :] + parts[..., 1, :], parts[..., 0, :] - parts[..., 1, :]], axis=3)
    y = y.reshape(len(x), m, 2**k)
    core = np.sign(rotation_matrix(m, Rotation())).astype(np.float32) if m > 1 else np.ones((1, 1), np.float32)
    y = np.einsum("tmk,mn->tnk", y, core)
    return (y.reshape(len(x), -1) * np.float32(1 / np.sqrt(x.shape[1]))).astype(np.float32)


def float32_linear(x, codes, grid, rule, rotation, bias):
    """What a backend does, in float32 throughout; the integer sums are exact."""
    x = fast_transform(x, rotation)
    blocks = x.shape[1] // (rule.block or x.shape[1])
    parts = x.reshape(len(x), blocks, -1)
    s = np.abs(parts).max(axis=2) / np.float32(2 ** (rule.bits - 1) - 1)
    v = np.clip(np.rint(parts / s[:, :, None]), -(2 ** (rule.bits - 1)), 2 ** (rule.bits - 1) - 1)
    u = (codes - 8).reshape(len(codes), blocks, -1)
    sums = np.einsum("tbk,nbk->tnb", v.astype(np.int64), u).astype(np.float32)
    r = (s * v.sum(axis=2)).sum(axis=1, dtype=np.float32)
    y = (sums * s[:, None, :]).sum(axis=2, dtype=np.float32)
    y = grid.scale[:, 0].astype(np.float32) * (y - (grid.zero[:, 0] - 8).astype(np.float32) * r[:, None])
    return (y + bias.astype(np.float32)).astype(np.float32), v.reshape(x.shape), x


@pytest.mark.parametrize("in_features", [128, 384, 1536])
@pytest.mark.parametrize(("bits", "block"), [(4, None), (4, 64), (8, 64), (8, None)])
@pytest.mark.parametrize("seed", range(3))
def test_float32_stays_within_its_bound(in_features, bits, block, seed):
    x, codes, grid, bias = layer(seed, in_features, tokens=8, out_features=6)
    grid = Grid(grid.scale.astype(np.float32).astype(np.float64), grid.zero, 4)
    x, bias = x.astype(np.float32).astype(np.float64), bias.astype(np.float32).astype(np.float64)
    rule, rotation = ActivationRule(bits, block), Rotation("full", 0)
    exact = quantized_linear(x, codes, grid, rule, rotation=rotation, bias=bias)
    y, v, rotated = float32_linear(x, codes, grid, rule, rotation, bias)
    r = rotation_matrix(in_features, rotation)
    assert (np.abs(rotated - x @ r) <= rotation_float32(x, rotation)).all()
    allowed = codes_float32(x, rule, rotation)
    assert not ((v != quantize_block(x @ r, rule).codes) & (allowed.may_differ == 0)).any()
    # A bound is worth something only if it is far below what it bounds: few doubtful codes, a small tolerance.
    assert allowed.may_differ.mean() <= 0.02
    bound = linear_float32(x, codes, grid, rule, rotation=rotation, bias=bias)
    assert (np.abs(y - exact) <= bound).all()
    assert np.median(bound) <= 0.02 * np.abs(exact).std()


def test_a_value_on_a_tie_may_differ():
    allowed = codes_float32([[7.0, 2.5, 2.4, 0.0]], ActivationRule(4, None))
    np.testing.assert_array_equal(allowed.may_differ, [[0, 1, 0, 0]])


def test_float32_without_a_rule_stays_within_its_bound():
    x, codes, grid, bias = layer(0, 384)
    single = fast_transform(x.astype(np.float32), Rotation()) @ dequantize(codes, grid).astype(np.float32).T
    x = x.astype(np.float32).astype(np.float64)
    exact = quantized_linear(x, codes, grid, None, rotation=Rotation(), bias=bias)
    bound = linear_float32(x, codes, grid, None, rotation=Rotation(), bias=bias)
    assert (np.abs(single + bias.astype(np.float32) - exact) <= bound).all()
    assert bound.max() <= 0.02 * np.abs(exact).std()
