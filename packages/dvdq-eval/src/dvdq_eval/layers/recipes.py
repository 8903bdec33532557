"""The recipes and shapes that layers are checked with unless others are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dvdq_eval.methods import AS_PUBLISHED, BASELINES
from dvdq_eval.methods import VARIANTS as CHANGES
from dvdq_reference.spec.recipe import Recipe, Smoothing, WeightRule

_PLUS = Recipe.named("dvd-quant-plus")
_CHANGED = {label: Recipe.named("dvd-quant", **changes) for label, changes in CHANGES.items()}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        **{label: Recipe.named(name) for label, name in BASELINES.items()},
        **{label: Recipe.named(name, **changes) for label, (name, changes) in AS_PUBLISHED.items()},
        "DVD-Quant": Recipe.named("dvd-quant"),
        "DVD-Quant plus": _PLUS,
        "DVD-Quant plus, smoothed without data": dataclasses.replace(_PLUS, smoothing=Smoothing("analytic")),
    }
)
"""Every method of the paper's tables, what two of them do besides, and ours."""

VARIANTS: Mapping[str, Recipe] = MappingProxyType(
    {
        **{f"DVD-Quant, {label}": recipe for label, recipe in _CHANGED.items() if not recipe.feeds_back},
        "DVD-Quant plus, groups of 64": dataclasses.replace(_PLUS, weight=WeightRule(4, "bgr", 64)),
    }
)
"""DVD-Quant with one thing changed, but for rounding by a model's videos, and the better recipe with smaller groups."""


@dataclass(frozen=True)
class Shape:
    """A weight's ``[out, in]``, e.g. ``Shape("HunyuanVideo", 3072, 15360)``, and whose it is."""

    model: str
    out_features: int
    in_features: int

    @property
    def label(self) -> str:
        """For people, e.g. ``HunyuanVideo 3072×15360``."""
        return f"{self.model} {self.out_features}×{self.in_features}"


SHAPES = (
    Shape("HunyuanVideo", 3072, 3072),
    Shape("HunyuanVideo", 12288, 3072),
    Shape("HunyuanVideo", 3072, 12288),
    Shape("HunyuanVideo", 3072, 15360),
    Shape("Wan2.1 1.3B", 1536, 1536),
    Shape("Wan2.1 1.3B", 8960, 1536),
    Shape("Wan2.1 1.3B", 1536, 8960),
    Shape("Wan2.1 14B", 5120, 5120),
    Shape("Wan2.1 14B", 13824, 5120),
    Shape("Wan2.1 14B", 5120, 13824),
)
"""Attention, both feed-forward linears, and the linear after HunyuanVideo's attention and MLP side by side."""

QUICK_SHAPES = (Shape("Wan2.1 1.3B", 1536, 1536),)
"""The smallest."""
