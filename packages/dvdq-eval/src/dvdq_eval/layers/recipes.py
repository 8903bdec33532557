"""The recipes that layers are checked with unless others are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from dvdq_eval.methods import AS_PUBLISHED, BASELINES
from dvdq_eval.methods import VARIANTS as CHANGES
from dvdq_reference.spec.recipe import Recipe, WeightRule

_PLUS = Recipe.named("dvd-quant-plus")

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        **{label: Recipe.named(name) for label, name in BASELINES.items()},
        **{label: Recipe.named(name, **changes) for label, (name, changes) in AS_PUBLISHED.items()},
        "DVD-Quant": Recipe.named("dvd-quant"),
        "DVD-Quant plus": _PLUS,
    }
)
"""Every method of the paper's tables, what two of them do besides, and ours."""

VARIANTS: Mapping[str, Recipe] = MappingProxyType(
    {
        **{f"DVD-Quant, {label}": Recipe.named("dvd-quant", **changes) for label, changes in CHANGES.items()},
        "DVD-Quant plus, groups of 64": dataclasses.replace(_PLUS, weight=WeightRule(4, "bgr", 64)),
    }
)
"""DVD-Quant with one thing changed, and the better recipe with smaller groups."""
