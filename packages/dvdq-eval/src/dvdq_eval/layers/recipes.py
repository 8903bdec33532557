"""The recipes that layers are checked with unless others are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from dvdq_reference.spec.recipe import ActivationRule, Recipe, Rotation, WeightRule

_OURS = Recipe.named("dvd-quant")
_SIGNS = Rotation("full", seed=0)
_CLIP = dataclasses.replace(_OURS.activation, clip="gaussian")

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "minmax": Recipe.named("minmax"),
        "smoothquant": Recipe.named("smoothquant"),
        "quarot": Recipe.named("quarot"),
        "quarot, clip search": Recipe.named("quarot", weight=WeightRule(4, "clip-search", symmetric=True)),
        "vidit-q": Recipe.named("vidit-q"),
        "dvd-quant": _OURS,
    }
)
"""Every method of the paper's tables, and QuaRot with its search."""

VARIANTS: Mapping[str, Recipe] = MappingProxyType(
    {
        "dvd-quant, random signs": dataclasses.replace(_OURS, rotation=_SIGNS),
        "dvd-quant, block rotation": dataclasses.replace(_OURS, rotation=Rotation("block")),
        "dvd-quant, regular rotation": dataclasses.replace(_OURS, rotation=Rotation("regular")),
        "dvd-quant, Gaussian clip": dataclasses.replace(_OURS, activation=_CLIP),
        "dvd-quant, block 64": dataclasses.replace(_OURS, activation=ActivationRule(8, 64)),
        "dvd-quant, block 256": dataclasses.replace(_OURS, activation=ActivationRule(8, 256)),
        "dvd-quant, per token": dataclasses.replace(_OURS, activation=ActivationRule(8)),
        "dvd-quant, group 256": dataclasses.replace(_OURS, weight=WeightRule(4, "bgr", 256)),
        "dvd-quant, group 128": dataclasses.replace(_OURS, weight=WeightRule(4, "bgr", 128)),
        "dvd-quant, group 64": dataclasses.replace(_OURS, weight=WeightRule(4, "bgr", 64)),
        "dvd-quant, signs, clip, group 64": dataclasses.replace(
            _OURS, rotation=_SIGNS, activation=_CLIP, weight=WeightRule(4, "bgr", 64)
        ),
    }
)
"""DVD-Quant with one thing changed, and with all that help."""
