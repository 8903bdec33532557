"""The errors of one weight under recipes that differ in nothing but how they quantize activations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from dvdq_eval.layers.synthetic import Sample
from dvdq_eval.quality import relative_error
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.layers.linear import QuantizedLinear
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

    The weight is quantized once, or once a sample if it is smoothed by what calibration knows of it. ``A16``, its own
    error, is that of the same codes with X as it is, divided by s where the recipe smooths.

    Args:
        weight: float32 ``[out, in]``.
        samples: by kind and seed.
        recipes: by label, with one weight rule, rotation and smoothing.
        widths: of the activations, in bits.
    """
    first = next(iter(recipes.values()))
    for keys in [list(samples)] if first.smoothing is None else [[key] for key in samples]:
        maxima = None if first.smoothing is None else samples[keys[0]].maxima
        empty = _empty(weight, first)
        empty.encode(weight[:1], maxima)  # what is compiled at its first call is no part of the time
        started = time.perf_counter()
        stored = empty.encode(weight, maxima)
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
