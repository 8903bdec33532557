"""A linear under a recipe is the composition of its steps, and at 8 bits near the linear that it stands for."""

from dataclasses import replace

import numpy as np
import pytest

from dvdq_reference.oracle.affine import dequantize, minmax_grid, quantize
from dvdq_reference.oracle.arq import quantize_block
from dvdq_reference.oracle.bgr import refine_grid
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.feedback import round_with_feedback, second_moments
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.linear import quantized_linear
from dvdq_reference.oracle.recipe import recipe_linear, weight_grid
from dvdq_reference.oracle.smoothing import channel_absmax, quarot_weight, smooth, smoothing_factor, viditq_weight
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, BitSchedule, Recipe, Rotation, Smoothing, WeightRule

TWICE = Smoothing("vidit-q", 0.3, twice=True)
CHANGES = {
    "twice": ("vidit-q", {"smoothing": TWICE}),
    "clip search": ("quarot", {"weight": WeightRule(8, "clip-search", symmetric=True)}),
    "clip search in groups": ("quarot", {"weight": WeightRule(8, "clip-search", 64, symmetric=True)}),
    "symmetric": ("convrot", {"weight": WeightRule(8, "bgr-symmetric", 64, symmetric=True)}),
    "regular": ("dvd-quant", {"rotation": Rotation("regular")}),
    "not rotated": ("vidit-q", {"rotation": None, "smoothing": TWICE}),
    "groups": ("dvd-quant", {"weight": WeightRule(8, "bgr", 32, num_bounds=2, tolerance=0.0)}),
}
RECIPES = {
    **{
        name: Recipe.named(name, "W8A8")
        for name in ("minmax", "smoothquant", "quarot", "vidit-q", "dvd-quant", "convrot")
    },
    **{name: Recipe.named(base, "W8A8", **changes) for name, (base, changes) in CHANGES.items()},
}


def data():
    """Seven tokens with an offset and an outlier channel, five rows of unlike size, statistics, and a bias."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(7, 256)) + 0.25, rng.normal(size=(5, 256)) * np.logspace(-2, 1, 5)[:, None]
    x[:, 9] *= 30
    return x, weight, channel_absmax(x) * 1.1, rng.normal(size=5)


def norm(values):
    return np.linalg.norm(values, axis=1)


def half_steps(scale, in_features):
    """The norm of a row whose every value is half a step off, for scales ``[rows, parts]``."""
    return norm(scale / 2) * np.sqrt(in_features / scale.shape[1])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_eight_bits_are_near_the_plain_product(recipe):
    """``Y - X Wᵀ = E_x W̃ᵀ + X̃ E_wᵀ + E_x E_wᵀ``, and no error is longer than half a step of a min-max grid a value.

    Neither clips, and what BGR or the clip search finds has no larger a norm: at a power p > 2, ``Σ|e|^p <= n h^p``
    bounds ``Σ e²`` by ``n h²`` too. The error of a first quantization keeps its length when it is rotated.
    """
    x, weight, x_max, bias = data()
    y = recipe_linear(x, weight, recipe, x_max=x_max, bias=bias)
    smooth_x, smooth_w, first = x, weight, 0.0
    if recipe.smoothing is not None:
        smooth_x, smooth_w = smooth(x, weight, smoothing_factor(x_max, weight, recipe.smoothing))
        if recipe.smoothing.twice:
            grid = minmax_grid(smooth_w, 8, symmetric=True)
            smooth_w, first = dequantize(quantize(smooth_w, grid), grid), half_steps(grid.scale, 256)
    r = np.eye(256) if recipe.rotation is None else rotation_matrix(256, recipe.rotation)
    rule = recipe.weight
    minmax = minmax_grid(smooth_w @ r, 8, group_size=rule.group_size, symmetric=rule.symmetric)
    x_error = half_steps(quantize_block(smooth_x @ r, recipe.activation).scale, 256)[:, None]
    w_error = half_steps(minmax.scale, 256) + first
    x_size, w_size = norm(smooth_x)[:, None], norm(smooth_w) + first
    # Two rotations and a product, each of 256 terms, in which |R| lengthens a row by √256 at most.
    rounded = 256 * gamma(3 * 256 + 16, 2.0**-53) * (x_size * w_size + np.abs(bias))
    bound = x_error * w_size + x_size * w_error + x_error * w_error + rounded
    assert (np.abs(y - (x @ weight.T + bias)) <= bound).all()
    # A bound is worth something only if it is far below what it bounds.
    assert (bound <= 0.1 * x_size * w_size).all()


def composed(name, x, weight, x_max, bias):
    """The steps of a named recipe at W4A8, by the oracle's other functions."""
    per_token, rotation = ActivationRule(8, None), Rotation("full", seed=0)
    if name == "minmax":
        grid = minmax_grid(weight, 4)
        return quantized_linear(x, quantize(weight, grid), grid, per_token, bias=bias)
    if name == "smoothquant":
        x, weight = smooth(x, weight, smoothing_factor(x_max, weight, Smoothing("smoothquant", 0.5)))
        grid = minmax_grid(weight, 4)
        return quantized_linear(x, quantize(weight, grid), grid, per_token, bias=bias)
    if name == "dvd-quant":
        found = refine_grid(weight @ rotation_matrix(256, rotation), 4)
        return quantized_linear(x, found.codes, found.grid, ActivationRule(8, 128), rotation=rotation, bias=bias)
    if name == "dvd-quant-plus":
        found = refine_grid(weight @ rotation_matrix(256, rotation), 4, group_size=256)
        rule = ActivationRule(8, 64, "signed")
        return quantized_linear(x, found.codes, found.grid, rule, rotation=rotation, bias=bias)
    if name == "quarot":
        return quantized_linear(x, *quarot_weight(weight, rotation), per_token, rotation=rotation, bias=bias)
    factor = smoothing_factor(x_max, weight, Smoothing("vidit-q", 0.5))
    codes, grid = viditq_weight(weight, factor, rotation)
    return quantized_linear(x / factor, codes, grid, per_token, rotation=rotation, bias=bias)


@pytest.mark.parametrize("name", ["minmax", "smoothquant", "quarot", "vidit-q", "dvd-quant", "dvd-quant-plus"])
def test_a_named_recipe_is_its_steps(name):
    x, weight, x_max, bias = data()
    y = recipe_linear(x, weight, Recipe.named(name), x_max=x_max, bias=bias)
    np.testing.assert_array_equal(y, composed(name, x, weight, x_max, bias))


def test_the_width_of_a_name_is_that_of_all_steps_but_its_last():
    """What a name says of its last steps holds wherever these differ from the others."""
    for name, last in (("dvd-quant", 0), ("dvd-quant-plus", 2), ("dvd-quant-finish", 2)):
        four, six = Recipe.named(name, "W4A4").schedule, Recipe.named(name, "W4A6").schedule
        kind, high = ("low", 8) if last else ("constant", 4)
        assert four == BitSchedule(kind, low=4, high=high, last_high=last)
        assert (six.kind, six.last_high) == ("delta", last)
    assert Recipe.named("dvd-quant-plus", "W4A8").schedule == BitSchedule("constant", low=8, high=8)
    finish = Recipe.named("dvd-quant-finish", "W8A8")
    assert finish.schedule == BitSchedule("constant", low=8, high=8, last_high=2)
    assert finish.finish == finish.weight == WeightRule(8, "bgr", 64)


def test_vidit_q_twice_is_its_steps():
    x, weight, x_max, _ = data()
    recipe = Recipe.named("vidit-q", smoothing=TWICE)
    factor, rotation = smoothing_factor(x_max, weight, TWICE), recipe.rotation
    codes, grid = viditq_weight(weight, factor, rotation, twice=True)
    expected = quantized_linear(x / factor, codes, grid, ActivationRule(8, None), rotation=rotation)
    np.testing.assert_array_equal(recipe_linear(x, weight, recipe, x_max=x_max), expected)
    once = replace(recipe, smoothing=replace(TWICE, twice=False))
    assert (recipe_linear(x, weight, once, x_max=x_max) != expected).any()


def test_quarot_with_its_clip_search_is_its_steps():
    x, weight, _, _ = data()
    recipe = Recipe.named("quarot", weight=WeightRule(3, "clip-search", symmetric=True))
    codes, grid = quarot_weight(weight, recipe.rotation, 3, clip_search=True)
    expected = quantized_linear(x, codes, grid, ActivationRule(8, None), rotation=recipe.rotation)
    np.testing.assert_array_equal(recipe_linear(x, weight, recipe), expected)


def test_bgr_is_bounded_by_its_rule():
    _, weight, _, _ = data()
    rule = WeightRule(4, "bgr", 64, num_bounds=2, tolerance=0.5)
    found = refine_grid(weight, 4, num_bounds=2, group_size=64, tolerance=0.5)
    np.testing.assert_array_equal(weight_grid(weight, rule).scale, found.scale)
    for other in (replace(rule, num_bounds=12), replace(rule, tolerance=0.0), replace(rule, group_size=32)):
        scale = weight_grid(weight, other).scale
        assert scale.shape != found.scale.shape or (scale != found.scale).any()


@pytest.mark.parametrize("name", ["dvd-quant", "twice", "not rotated"])
def test_a_step_that_finishes_is_its_two_products(name):
    x, weight, x_max, bias = data()
    recipe = replace(
        Recipe.named(*{"dvd-quant": ("dvd-quant",), "twice": ("vidit-q",), "not rotated": ("minmax",)}[name]),
        **({"smoothing": TWICE} if name == "twice" else {}),
        schedule=BitSchedule(last_high=1),
        finish=WeightRule(4, "bgr", 64),
    )
    plain = recipe_linear(x, weight, replace(recipe, finish=None), x_max=x_max, bias=bias)
    np.testing.assert_array_equal(recipe_linear(x, weight, recipe, x_max=x_max, bias=bias), plain)
    np.testing.assert_array_equal(
        recipe_linear(x, weight, replace(recipe, finish=None), x_max=x_max, bias=bias, finishing=True), plain
    )
    factor = smoothing_factor(x_max, weight, TWICE) if name == "twice" else np.ones(256)
    r = np.eye(256) if recipe.rotation is None else rotation_matrix(256, recipe.rotation)
    exact = smoothed = weight * factor
    if name == "twice":
        once = minmax_grid(smoothed, 4, symmetric=True)
        smoothed = dequantize(quantize(smoothed, once), once)
    grid = weight_grid(smoothed @ r, recipe.weight)
    left = exact @ r - dequantize(quantize(smoothed @ r, grid), grid)
    second = weight_grid(left, recipe.finish)
    added = quantized_linear(x / factor, quantize(left, second), second, recipe.activation, rotation=recipe.rotation)
    y = recipe_linear(x, weight, recipe, x_max=x_max, bias=bias, finishing=True)
    # X, W and bias of the first product are the same bits; a product with the identity may differ in the last.
    np.testing.assert_allclose(y, plain + added, rtol=0, atol=256 * gamma(256, 2.0**-53) * np.abs(y).max())
    # Without rounding of X, what is left is what the second grid leaves: at least three bits less.
    w = dequantize(quantize(smoothed @ r, grid), grid)
    both = w + dequantize(quantize(left, second), second)
    assert np.linalg.norm(exact @ r - both) <= np.linalg.norm(exact @ r - w) / 8


@pytest.mark.parametrize("name", ["dvd-quant", "vidit-q"])
def test_rounding_with_feedback_is_in_the_basis_of_the_codes(name):
    x, weight, x_max, bias = data()
    plain = Recipe.named(name)
    recipe = replace(
        plain,
        weight=replace(plain.weight, grid="minmax", group_size=64, rounding="feedback"),
        schedule=BitSchedule(last_high=1),
        finish=WeightRule(4, "minmax", 64, rounding="feedback"),
    )
    known = {"x_max": x_max, "moments": second_moments(x), "bias": bias}
    factor = np.ones(256) if recipe.smoothing is None else smoothing_factor(x_max, weight, recipe.smoothing)
    r = rotation_matrix(256, recipe.rotation)
    there, rotated = second_moments(x / factor @ r), weight * factor @ r
    grid = weight_grid(rotated, recipe.weight)
    codes = round_with_feedback(rotated, grid, there)
    rule, rotation = recipe.activation, recipe.rotation
    expected = quantized_linear(x / factor, codes, grid, rule, rotation=rotation, bias=bias)
    # One rounding apart, as moments were rotated or what they are of was: no target is that near to a tie here.
    np.testing.assert_array_equal(recipe_linear(x, weight, recipe, **known), expected)
    left = rotated - dequantize(codes, grid)
    second = weight_grid(left, recipe.finish)
    expected += quantized_linear(x / factor, round_with_feedback(left, second, there), second, rule, rotation=rotation)
    np.testing.assert_array_equal(recipe_linear(x, weight, recipe, **known, finishing=True), expected)
    with pytest.raises(DvdqError, match="moments: expected what calibration records, got None"):
        recipe_linear(x, weight, recipe, x_max=x_max)


def test_a_schedule_chooses_the_width():
    x, weight, _, _ = data()
    recipe = Recipe.named("dvd-quant", "W4A6")
    low = replace(recipe, activation=replace(recipe.activation, bits=4))
    np.testing.assert_array_equal(recipe_linear(x, weight, recipe, bits=4), recipe_linear(x, weight, low))


@pytest.mark.parametrize("name", ["smoothquant", "vidit-q"])
def test_smoothing_needs_statistics(name):
    x, weight, _, _ = data()
    with pytest.raises(DvdqError, match="recipe_linear: x_max: expected what calibration records, got None"):
        recipe_linear(x, weight, Recipe.named(name))
