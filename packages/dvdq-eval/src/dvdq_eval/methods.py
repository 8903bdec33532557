"""The methods that are compared: the paper's baselines, what their authors do besides, and ablations of ours."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dvdq_reference.spec.recipe import DEFAULT_BLOCK, ActivationRule, Rotation, Smoothing, WeightRule

BASELINES: Mapping[str, str] = MappingProxyType(
    {"MinMax": "minmax", "SmoothQuant": "smoothquant", "QuaRot": "quarot", "ViDiT-Q": "vidit-q"}
)
"""The paper's, by label: the name of each one's recipe."""

LABELS: Mapping[str, str] = MappingProxyType(
    {name: label for label, name in BASELINES.items()} | {"dvd-quant": "DVD-Quant", "dvd-quant-plus": "DVD-Quant plus"}
)
"""For people, by the name of a recipe."""

AS_PUBLISHED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "QuaRot, clipped": (
            "quarot",
            {
                "weight": WeightRule(4, "clip-search", symmetric=True),
                "activation": ActivationRule(8, None, "quarot"),
            },
        ),
        "ViDiT-Q, α 0.11": ("vidit-q", {"smoothing": Smoothing("vidit-q", 0.89)}),
        "ViDiT-Q, weights twice": ("vidit-q", {"smoothing": Smoothing("vidit-q", 0.5, twice=True)}),
    }
)
"""What two of them do in their own experiments or code: QuaRot clips activations to 0.9 of their range and searches the
clip of weights; ViDiT-Q's configuration for video has α = 0.11 as SmoothQuant counts it, and its code quantizes the
smoothed weight once more."""

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "groups of 64": {"weight": WeightRule(4, "bgr", 64)},
        "groups of 128": {"weight": WeightRule(4, "bgr", 128)},
        "groups of 256": {"weight": WeightRule(4, "bgr", 256)},
        "Gaussian clip": {"activation": ActivationRule(8, DEFAULT_BLOCK, "gaussian")},
        "random signs": {"rotation": Rotation("full", seed=0)},
        "blocks of 256 rotated": {"rotation": Rotation("block")},
        "regular blocks of 256 rotated": {"rotation": Rotation("regular")},
        "a scale per token": {"activation": ActivationRule(8, None)},
        "a scale per 64": {"activation": ActivationRule(8, 64)},
        "BGR with 1 bound": {"weight": WeightRule(4, "bgr", num_bounds=1)},
        "BGR with 20 bounds": {"weight": WeightRule(4, "bgr", num_bounds=20)},
        "BGR to tolerance 0": {"weight": WeightRule(4, "bgr", tolerance=0.0)},
    }
)
"""What each choice beyond the paper changes in ``dvd-quant``: one field."""


def title_of(label: str, bits: str, teacache: float | None = None) -> str:
    """A method for people, e.g. ``DVD-Quant W4A6 + TeaCache 0.1``; full precision has no bits."""
    cached = "" if teacache is None else f" + TeaCache {teacache:g}"
    return f"{label} {bits}".strip() + cached
