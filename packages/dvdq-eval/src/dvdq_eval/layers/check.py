"""The check of layers: every shape, kind and recipe, over several seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from dvdq_eval.layers.activations import KINDS, MASSIVE_POOL, Kind
from dvdq_eval.layers.measure import Figures, measure
from dvdq_eval.layers.recipes import RECIPES, SHAPES, Shape
from dvdq_eval.layers.results import LayerRow, LayerTable, Range
from dvdq_eval.layers.synthetic import CALIBRATION_TOKENS, draw_samples, draw_weight
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_kernels.call import Call, Place
from dvdq_kernels.rotation import check_rotation
from dvdq_kernels.selection import select
from dvdq_reference.spec.bits import check_bits
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.quantized import bits_per_weight
from dvdq_reference.spec.recipe import Recipe

TOKENS, SEEDS = 64, (0, 1, 2)


def check_layers(
    recipes: Mapping[str, Recipe] = RECIPES,
    *,
    shapes: Sequence[Shape] = SHAPES,
    kinds: Mapping[str, Kind] = KINDS,
    tokens: int = TOKENS,
    seeds: Sequence[int] = SEEDS,
    widths: Sequence[int] = (8, 4),
    spread: float = 0.0,
    tell: Tell = lambda what, done, total: None,
) -> LayerTable:
    """The error of each recipe's :class:`~dvdq_models.layers.linear.QuantizedLinear` on synthetic layers, on the CPU.

    Each shape has one weight, which is quantized once for all recipes that agree on it
    (:func:`~dvdq_eval.layers.measure.measure`), and for each kind of activations one sample a seed.

    Args:
        recipes: by label; their schedules are not used.
        shapes: of the layers.
        kinds: of activations, by name.
        tokens: to evaluate, of each kind and seed.
        seeds: whole numbers >= 0, none twice.
        widths: of activations, in bits, whatever a recipe's rule says.
        spread: of the weight's channels, as :func:`~dvdq_eval.layers.synthetic.draw_weight` says.
        tell: told of progress.

    Raises:
        DvdqError: nothing to check, a bad number, or a recipe that does not fit a shape; before anything is computed.
    """
    _check_numbers(tokens, seeds, widths, spread)
    for name, given in (("recipes", recipes), ("shapes", shapes), ("kinds", kinds)):
        if not given:
            raise DvdqError("check_layers", where=name, expected="at least one", got="none")
    for shape in shapes:
        for label, recipe in recipes.items():
            _check_fit(shape, label, recipe)
    alike = _alike(recipes)
    found: dict[tuple[Shape, str, str], list[Figures]] = defaultdict(list)
    done, total = 0, len(shapes) * len(alike)
    with torch.inference_mode():
        for shape in shapes:
            tell(shape.label, done, total)
            weight = draw_weight(shape, spread)
            samples = draw_samples(shape, weight, kinds, tokens, seeds)
            for group in alike:
                for (kind, _), label, figures in measure(weight, samples, group, widths):
                    found[shape, kind, label].append(figures)
                done += 1
                tell(shape.label, done, total)
    cpu, grids = Place("cpu"), dict.fromkeys(recipe.weight.grid for recipe in recipes.values())
    return LayerTable(
        rows=tuple(
            _row(shape, kind, label, recipe, found[shape, kind, label])
            for shape in shapes
            for kind in kinds
            for label, recipe in recipes.items()
        ),
        recipes={label: recipe.to_dict() for label, recipe in recipes.items()},
        tokens=tokens,
        calibration_tokens=CALIBRATION_TOKENS,
        seeds=tuple(seeds),
        spread=spread,
        backends={
            **{f"quantize_weight, {grid}": select(Call("quantize_weight", cpu, grid)).backend.name for grid in grids},
            "quantized_linear": select(Call("quantized_linear", cpu)).backend.name,
        },
        provenance=provenance(),
    )


def _alike(recipes: Mapping[str, Recipe]) -> list[dict[str, Recipe]]:
    """The recipes in groups that store the same weight."""
    groups: dict[object, dict[str, Recipe]] = defaultdict(dict)
    for label, recipe in recipes.items():
        groups[recipe.weight, recipe.rotation, recipe.smoothing, recipe.finish][label] = recipe
    return list(groups.values())


def _row(shape: Shape, kind: str, label: str, recipe: Recipe, figures: Sequence[Figures]) -> LayerRow:
    size = shape.out_features, shape.in_features
    return LayerRow(
        shape.model,
        *size,
        kind=kind,
        recipe=label,
        bits_per_weight=bits_per_weight(*size, recipe.weight, recipe.smoothing, recipe.finish),
        errors={bits: Range.of([f.errors[bits] for f in figures]) for bits in figures[0].errors},
        quantize_seconds=fmean(f.seconds for f in figures),
    )


def _check_numbers(tokens: int, seeds: Sequence[int], widths: Sequence[int], spread: float) -> None:
    operation = "check_layers"
    if tokens < 1:
        raise DvdqError(operation, where="tokens", expected="at least 1", got=tokens)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise DvdqError(operation, where="seeds", expected="whole numbers >= 0, none twice", got=list(seeds))
    for bits in widths:
        check_bits(operation, bits)
    if not 0.0 <= spread <= 10.0:
        raise DvdqError(operation, where="spread", expected="0 to 10", got=spread)


def _check_fit(shape: Shape, label: str, recipe: Recipe) -> None:
    operation, width = f"check_layers: {shape.label}, {label}", shape.in_features
    if shape.out_features < 1 or width < MASSIVE_POOL:
        raise DvdqError(operation, expected=f"a shape of at least 1×{MASSIVE_POOL}", got=shape)
    packed_width(operation, width, recipe.weight.bits)
    count_parts(operation, width, recipe.weight.group_size)
    count_parts(operation, width, recipe.activation.block)
    if recipe.rotation is not None:
        check_rotation(operation, width, recipe.rotation)
