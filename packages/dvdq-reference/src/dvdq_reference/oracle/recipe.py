"""A whole linear under a whole recipe: what a quantized layer computes of X and W, each step by its own file."""

from __future__ import annotations

import dataclasses
from typing import Any

from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, dequantize, minmax_grid, quantize
from dvdq_reference.oracle.bgr import refine_grid
from dvdq_reference.oracle.bgr_symmetric import refine_scale
from dvdq_reference.oracle.clip_search import search_clip
from dvdq_reference.oracle.feedback import moments_in_basis, round_with_feedback
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.inputs import Floats, Ints, matrix
from dvdq_reference.oracle.linear import quantized_linear
from dvdq_reference.oracle.smoothing import smooth, smoothing_factor
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe, WeightRule


def recipe_linear(
    x: ArrayLike,
    weight: ArrayLike,
    recipe: Recipe,
    *,
    x_max: ArrayLike | None = None,
    moments: ArrayLike | None = None,
    bits: int | None = None,
    bias: ArrayLike | None = None,
    finishing: bool = False,
) -> Floats:
    """``Y = Q(X/s R) Q(W s R)ᵀ + bias``, float64 ``[tokens, out]``; s is 1 without smoothing, R is I without rotation.

    With ``twice``, ``W s`` is first replaced by what its symmetric min-max grid, one a row, makes of it. In a step that
    finishes, ``Q(X/s R) Q'(W s R - Q(W s R))ᵀ`` is added, Q' by the rule ``finish``.

    Args:
        x: X, ``[tokens, in]``.
        weight: W, ``[out, in]``.
        recipe: smoothing, rotation, weight rule and activation rule are used.
        x_max: ``max|X_j|``, ``[in]``, from calibration; asked for by a recipe that smooths, else not looked at.
        moments: H of X, ``[in, in]``, from calibration; asked for by a rule that rounds with feedback, likewise.
        bits: width of the activations' codes, where a schedule chooses it; None is the activation rule's.
        bias: ``[out]``.
        finishing: whether this is a step that finishes; nothing is added for a recipe without ``finish``.

    Raises:
        DvdqError: as each step does, or for a recipe that smooths without ``x_max`` or feeds back without ``moments``.
    """
    x, weight = matrix("recipe_linear", x, "token"), matrix("recipe_linear", weight)
    rule = recipe.activation if bits is None else dataclasses.replace(recipe.activation, bits=bits)
    factor = None
    if recipe.smoothing is not None:
        if x_max is None:
            raise DvdqError("recipe_linear", where="x_max", expected="what calibration records", got=None)
        factor = smoothing_factor(x_max, weight, recipe.smoothing)
        x, weight = smooth(x, weight, factor)
    given = weight
    if recipe.smoothing is not None and recipe.smoothing.twice:
        once = minmax_grid(weight, recipe.weight.bits, symmetric=True)
        given = dequantize(quantize(weight, once), once)
    if recipe.rotation is not None:
        r = rotation_matrix(weight.shape[1], recipe.rotation)
        weight, given = weight @ r, given @ r
    h = None if moments is None else moments_in_basis(moments, factor=factor, rotation=recipe.rotation)
    codes, grid = weight_codes(given, recipe.weight, h)
    y = quantized_linear(x, codes, grid, rule, rotation=recipe.rotation, bias=bias)
    if not finishing or recipe.finish is None:
        return y
    left = weight - dequantize(codes, grid)
    codes, grid = weight_codes(left, recipe.finish, h)
    return y + quantized_linear(x, codes, grid, rule, rotation=recipe.rotation)


def weight_codes(weight: ArrayLike, rule: WeightRule, moments: ArrayLike | None = None) -> tuple[Ints, Grid]:
    """The codes that ``rule`` asks for, on the grid of :func:`weight_grid`, which rounding does not change.

    Raises:
        DvdqError: for a rule that rounds with feedback without ``moments``, which are those in the weight's basis.
    """
    grid = weight_grid(weight, rule)
    if rule.rounding == "nearest":
        return quantize(weight, grid), grid
    if moments is None:
        raise DvdqError("weight_codes", where="moments", expected="what calibration records", got=None)
    return round_with_feedback(weight, grid, moments), grid


def weight_grid(weight: ArrayLike, rule: WeightRule) -> Grid:
    """The grid that ``rule`` asks for: min-max, what BGR finds, or what the clip search finds."""
    search: dict[str, Any] = {
        "num_bounds": rule.num_bounds,
        "group_size": rule.group_size,
        "tolerance": rule.tolerance,
    }
    if rule.grid == "bgr":
        return refine_grid(weight, rule.bits, **search).grid
    if rule.grid == "bgr-symmetric":
        return refine_scale(weight, rule.bits, **search)
    if rule.grid == "clip-search":
        return search_clip(weight, rule.bits, group_size=rule.group_size)
    return minmax_grid(weight, rule.bits, group_size=rule.group_size, symmetric=rule.symmetric)
