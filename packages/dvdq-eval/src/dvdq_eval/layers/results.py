"""``layers.json``: one row a shape, kind of activations and recipe, and the table of what each recipe costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from dvdq_eval.sheets import Cell, Column, Sheet, best, figure, names, sheet_of, span

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


def layer_sheet(checked: LayerTable) -> Sheet:
    """A row a recipe: stored bits a weight, and each kind's error in percent at every width of activations.

    Errors are means over shapes and seeds; the least of a kind, at the last width, stands out. A page also has how far
    they reach, the weights' own error and the seconds that a layer takes.
    """
    rows = {label: [row for row in checked.rows if row.recipe == label] for label in checked.recipes}
    widths = list(dict.fromkeys(bits for row in checked.rows for bits in row.errors))
    own = [bits for bits in widths if bits.endswith("A16")]
    columns = [
        (Column("recipe", first="ascending"), names(list(rows))),
        (
            Column("bits a weight", "stored, scales and all counted", "ascending"),
            [figure(fmean(row.bits_per_weight for row in found), ".2f") for found in rows.values()],
        ),
    ]
    for kind in dict.fromkeys(row.kind for row in checked.rows):
        of_kind = [[row for row in found if row.kind == kind] for found in rows.values()]
        for shown in ([bits for bits in widths if bits not in own], own):
            heading = f"{kind}, {' / '.join(shown)} (%)"
            column = Column(heading, "of the norm of a layer's output", "ascending", aside=shown is own)
            columns.append((column, best([_error(found, shown) for found in of_kind], min)))
    columns.append(
        (
            Column("seconds a layer", "to quantize it", "ascending", aside=True),
            [figure(fmean(row.quantize_seconds for row in found), ".1f") for found in rows.values()],
        )
    )
    return sheet_of("Relative output error of synthetic layers, all shapes", columns)


def _error(rows: Sequence[LayerRow], widths: Sequence[str]) -> Cell:
    """The mean over some rows at each width; it sorts by the last one."""
    found = [[row.errors[bits] for row in rows if bits in row.errors] for bits in widths]
    means = [fmean(error.mean for error in errors) if errors else None for errors in found]
    ends = [
        span(100 * min(e.low for e in errors), 100 * max(e.high for e in errors), ".1f") for errors in found if errors
    ]
    text = " / ".join(figure(mean, ".1f", 100.0).text for mean in means)
    return Cell(text, means[-1] if means else None, span=" / ".join(ends))
