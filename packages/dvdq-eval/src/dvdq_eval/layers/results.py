"""What a check of layers gives: one row a shape, kind and recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Self

SCHEMA = 1


@dataclass(frozen=True)
class Range:
    """The mean of a figure over seeds, and its least and largest."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The range of one value a seed."""
        return cls(fmean(values), min(values), max(values))


@dataclass(frozen=True)
class LayerRow:
    """One shape, kind of activations and recipe.

    Attributes:
        model, out_features, in_features: of the shape.
        kind: of the activations.
        recipe: its label.
        bits_per_weight: stored, scales, zero-points and smoothing factors counted.
        errors: ``‖Y - Ŷ‖ / ‖Y‖`` by widths: ``W4A16``, the weight's own, then ``W4A8``, ``W4A4``.
        quantize_seconds: wall time for the weight, here.
    """

    model: str
    out_features: int
    in_features: int
    kind: str
    recipe: str
    bits_per_weight: float
    errors: Mapping[str, Range]
    quantize_seconds: float


@dataclass(frozen=True)
class LayerTable:
    """All rows, and what it takes to compute them again.

    Attributes:
        rows: by shape, then kind, then recipe.
        recipes: by label, as :meth:`~dvdq_reference.spec.recipe.Recipe.to_dict` writes them.
        tokens: evaluated, of each kind and seed.
        calibration_tokens: others, that the recipes which smooth know the maxima of.
        seeds: one sample of each kind for each.
        spread: deviation of the logarithm of the scales of a weight's input channels.
        backends: what quantized the weights, by grid, and what multiplied.
        provenance: versions, machine and commit.
    """

    rows: tuple[LayerRow, ...]
    recipes: Mapping[str, Mapping[str, Any]]
    tokens: int
    calibration_tokens: int
    seeds: tuple[int, ...]
    spread: float
    backends: Mapping[str, str]
    provenance: Mapping[str, Any]
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    def to_json(self) -> str:
        """The table as strict JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
