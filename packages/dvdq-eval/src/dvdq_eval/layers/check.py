"""The check of layers: every shape, kind and recipe, over several seeds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from dvdq_eval.layers.recipes import RECIPES, SHAPES, Shape
from dvdq_eval.layers.results import LayerRow, LayerTable, Range
from dvdq_eval.layers.synthetic import CALIBRATION_TOKENS, KINDS, MASSIVE_POOL, Kind, Sample, draw_samples, draw_weight
from dvdq_eval.machine import provenance
from dvdq_eval.progress import Tell, silent
from dvdq_eval.quality import relative_error
from dvdq_kernels.call import Call, Place
from dvdq_kernels.rotation import check_rotation
from dvdq_kernels.selection import select
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.bits import check_bits
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.quantized import bits_per_weight
from dvdq_reference.spec.recipe import Recipe

Key = tuple[str, int]
"""Kind and seed of a sample."""


@dataclass(frozen=True)
class Figures:
    """``‖Y - Ŷ‖ / ‖Y‖`` of one sample by widths, e.g. ``{"W4A8": 0.11}``, and the seconds that the weight took."""

    errors: Mapping[str, float]
    seconds: float


def measure(
    weight: torch.Tensor, samples: Mapping[Key, Sample], recipes: Mapping[str, Recipe], widths: Sequence[int]
) -> Iterator[tuple[Key, str, Figures]]:
    """The figures of each sample and recipe.

    The weight is quantized once, or once a sample if it is smoothed by what is known of that. ``A16``, its own
    error, is that of the same codes with X as it is, divided by s where the recipe smooths.

    Args:
        weight: float32 ``[out, in]``.
        samples: by kind and seed.
        recipes: by label, with one weight rule, rotation and smoothing.
        widths: of the activations, in bits.
    """
    first = next(iter(recipes.values()))
    for keys in [list(samples)] if first.smoothing is None else [[key] for key in samples]:
        known = samples[keys[0]]
        magnitudes = known.maxima if first.smooths_by_maxima else known.known
        empty = _empty(weight, first)
        empty.encode(weight[:1], magnitudes)  # what is compiled at its first call is no part of the time
        started = time.perf_counter()
        stored = empty.encode(weight, magnitudes)
        seconds = time.perf_counter() - started
        # All tokens go through the layer together: it decodes its weight once, and treats each token alone.
        x = torch.cat([samples[key].x for key in keys])
        full: dict[Key, float] | None = None
        for label, recipe in recipes.items():
            layer = _empty(weight, recipe)
            layer.load_state_dict(stored, assign=True)
            found = {}
            for bits in widths:
                layer.state.bits = bits
                found[bits] = _errors(layer(x), samples, keys)
            if full is None:
                layer.activation = None
                full = _errors(layer(x), samples, keys)
            for key in keys:
                errors = {f"W{recipe.weight.bits}A{bits}": by[key] for bits, by in {16: full, **found}.items()}
                yield key, label, Figures(errors, seconds)


def _empty(weight: torch.Tensor, recipe: Recipe) -> QuantizedLinear:
    out_features, in_features = weight.shape
    return QuantizedLinear(in_features, out_features, recipe, ActivationState(recipe.activation.bits))


def _errors(output: torch.Tensor, samples: Mapping[Key, Sample], keys: Sequence[Key]) -> dict[Key, float]:
    parts = output.split([samples[key].x.shape[0] for key in keys])
    return {
        key: relative_error(part.numpy(), samples[key].exact.numpy()) for key, part in zip(keys, parts, strict=True)
    }


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
    tell: Tell = silent,
) -> LayerTable:
    """The error of each recipe's :class:`~dvdq_models.layers.linear.QuantizedLinear` on synthetic layers, on the CPU.

    Each shape has one weight, which is quantized once for all recipes that agree on it
    (:func:`~dvdq_eval.layers.check.measure`), and for each kind of activations one sample a seed.

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
    if recipe.feeds_back:
        raise DvdqError(operation, expected="rounding to nearest: no model makes videos here", got="feedback")
    packed_width(operation, width, recipe.weight.bits)
    count_parts(operation, width, recipe.weight.group_size)
    count_parts(operation, width, recipe.activation.block)
    if recipe.rotation is not None:
        check_rotation(operation, width, recipe.rotation)
