"""Methods beside one another: which figures a row has, and how each is called and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from dvdq_eval.methods import LABELS
from dvdq_eval.paper import DIFFERS, PAPER
from dvdq_eval.sheets import NOTHING, Cell, Column, Sheet, figure, sheet_of, with_interval
from dvdq_eval.tables.rows import METRICS, Row, Table

Columns = list[tuple[Column, Sequence[Cell]]]
_OURS = tuple(LABELS[name] for name in ("dvd-quant", "dvd-quant-plus", "dvd-quant-finish"))


def table_sheet(table: Table) -> Sheet:
    """Size and quality of a table's methods, what they are held against and how long they took to prepare.

    Means have their intervals; ▲ or ▼ mark what is better or worse than its rival by more than chance.
    """
    against = [Cell(row.against or "–", row.against) for row in table.rows]
    held = Column("held against", "the method that its videos are compared with", "ascending", words=True, aside=True)
    more: Columns = [(held, against), _preparing(table.rows)]
    return methods_sheet(f"{table.title}, {table.videos} videos of each method", table.rows, more)


def methods_sheet(caption: str, rows: Sequence[Row], more: Columns) -> Sheet:
    """Size and quality of methods, figures that no row has left out, with ``more`` columns at the end."""
    name = [Cell(row.title, place, css=css_of(row.label)) for place, row in enumerate(rows)]
    sizes: Columns = [
        (
            Column("MB", "of the transformer's checkpoint", "ascending", aside=True),
            [figure(row.bytes, ".2f", 1e-6) for row in rows],
        ),
        (
            Column("bits a weight", "stored, scales and zero-points counted", "ascending"),
            [figure(row.bits_per_weight, ".2f") for row in rows],
        ),
        (
            Column("activation bits", "mean over the steps that ran", "ascending"),
            [figure(row.average_bits, ".2f") for row in rows],
        ),
        (Column("passes reused", "skipped by TeaCache"), [figure(row.reused, ".0%") for row in rows]),
    ]
    metrics: Columns = [(_column(name), [_quality(name, row) for row in rows]) for name in METRICS]
    return sheet_of(caption, [(Column("method", first="ascending"), name), *sizes, *metrics, *more])


def _column(name: str) -> Column:
    metric = METRICS[name]
    order: Literal["ascending", "descending"] = "ascending" if metric.more_is_better is False else "descending"
    return Column(metric.heading, metric.meaning, order, more_is_better=metric.more_is_better)


def _quality(name: str, row: Row) -> Cell:
    if name not in row.metrics:
        return NOTHING
    metric = METRICS[name]
    cell = with_interval(row.metrics[name], metric.form, metric.unit)
    return dataclasses.replace(cell, mark=metric.verdict(row.differences.get(name)))


def _preparing(rows: Sequence[Row]) -> tuple[Column, list[Cell]]:
    """Seconds for the weights, and for the videos that a calibrated method has to see."""
    calibrated = any(row.calibration_seconds is not None for row in rows)
    cells = []
    for row in rows:
        calibrating = "" if row.calibration_seconds is None else f" + {row.calibration_seconds:.0f} calibrating"
        total = row.prepare_seconds + (row.calibration_seconds or 0.0)
        cells.append(Cell(f"{row.prepare_seconds:.1f}{calibrating}", total))
    # Where none was calibrated it says little.
    return Column("preparing (s)", "quantizing the weights", "ascending", aside=not calibrated), cells


def css_of(label: str) -> str:
    """The style of a method: ours stand out."""
    return "ours" if label in _OURS else "rival"


def paper_sheet(name: str) -> Sheet | None:
    """The paper's own figures, if it prints any, with what they cannot be held against."""
    if name not in PAPER:
        return None
    paper = PAPER[name]
    rows = [[Cell(text, text) for text in row] for row in paper.rows]
    return Sheet("The paper’s own figures", [Column(text) for text in paper.columns], rows, folded=True, note=DIFFERS)
