"""What a check of layers gives: one row a shape, kind and recipe, and the tables of what each recipe costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dvdq_eval.sheets.figures import figure
from dvdq_eval.sheets.sheet import Cell, Column, Sheet

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


def layer_table(checked: LayerTable) -> Table:
    """One line a kind and recipe: the mean of each error over shapes and seeds, with the least and the largest.

    The least mean of a kind at a width is bold.
    """
    table = Table(title="Relative output error of synthetic layers, all shapes", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    widths = list(dict.fromkeys(bits for row in checked.rows for bits in row.errors))
    for name in ("bits a\nweight", *widths, "seconds\na layer"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in dict.fromkeys(row.kind for row in checked.rows):
        table.add_section()
        table.add_row(f"[italic]{kind}[/italic]")
        of_kind = [row for row in checked.rows if row.kind == kind]
        lines = {label: [row for row in of_kind if row.recipe == label] for label in checked.recipes}
        least = {bits: min(_mean(rows, bits) for rows in lines.values() if bits in rows[0].errors) for bits in widths}
        for label, rows in lines.items():
            cells = [_cell(rows, bits, least[bits]) if bits in rows[0].errors else "–" for bits in widths]
            size = fmean(row.bits_per_weight for row in rows)
            seconds = fmean(row.quantize_seconds for row in rows)
            table.add_row(label, f"{size:.3f}", *cells, f"{seconds:.1f}")
    return table


def summary_sheet(checked: LayerTable) -> Sheet:
    """A row a recipe: stored bits a weight, then each kind's mean error at W4A8 and at W4A4, in percent."""
    kinds = list(dict.fromkeys(row.kind for row in checked.rows))
    widths = [bits for bits in dict.fromkeys(bits for row in checked.rows for bits in row.errors) if bits != "W4A16"]
    rows = []
    for label in checked.recipes:
        found = [row for row in checked.rows if row.recipe == label]
        cells = [Cell(label), figure(fmean(row.bits_per_weight for row in found), ".2f")]
        for kind in kinds:
            of_kind = [row for row in found if row.kind == kind]
            cells.append(Cell(" / ".join(f"{100 * _mean(of_kind, bits):.1f}" for bits in widths)))
        rows.append(cells)
    columns = [
        Column("recipe"),
        Column("bits a weight"),
        *(Column(f"{kind}, {' / '.join(widths)} (%)") for kind in kinds),
    ]
    return Sheet("Relative output error of synthetic layers", columns, rows)


def _mean(rows: list[LayerRow], bits: str) -> float:
    return fmean(row.errors[bits].mean for row in rows)


def _cell(rows: list[LayerRow], bits: str, least: float) -> str:
    mean = _mean(rows, bits)
    low, high = min(row.errors[bits].low for row in rows), max(row.errors[bits].high for row in rows)
    text = f"[bold]{mean:.4f}[/bold]" if mean == least else f"{mean:.4f}"
    return text + "\n" + "–".join(f"{end:.3f}".removeprefix("0") for end in (low, high))
