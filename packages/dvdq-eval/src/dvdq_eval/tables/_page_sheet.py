"""Rows of methods as a sheet: which figures a row has, how each is called and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dvdq_eval.methods import LABELS, title_of
from dvdq_eval.report.parts import Cell, Column, Sheet
from dvdq_eval.tables.metrics import METRICS
from dvdq_eval.tables.rows import Row

_OURS = (LABELS["dvd-quant"], LABELS["dvd-quant-plus"])


def title(row: Row) -> str:
    """The method's, e.g. ``DVD-Quant W4A6``."""
    return title_of(row.label, row.bits, row.teacache)


def table_sheet(caption: str, rows: Sequence[Row], more: Sequence[tuple[Column, Sequence[Cell]]] = ()) -> Sheet:
    """Size and quality of methods, figures that no row has left out, with ``more`` columns at the end."""
    sizes = [(column, [cell(row) for row in rows]) for column, cell in _SIZES]
    metrics = [
        (_column(name), [_quality(name, row) for row in rows])
        for name in METRICS
        if any(name in row.metrics for row in rows)
    ]
    known = [(column, cells) for column, cells in sizes if any(cell.value is not None for cell in cells)]
    columns = [*known, *metrics, *more]
    names = [Cell(title(row), number, css=css_of(row.label)) for number, row in enumerate(rows)]
    return Sheet(
        caption,
        [Column("Method", first="ascending"), *(column for column, _ in columns)],
        [[name, *(cells[number] for _, cells in columns)] for number, name in enumerate(names)],
    )


def plain(value: float | None, form: str, unit: float = 1.0, css: str = "") -> Cell:
    """A figure or a dash."""
    return Cell("–") if value is None else Cell(format(value * unit, form), value, css=css)


_SIZES: Sequence[tuple[Column, Callable[[Row], Cell]]] = (
    (Column("MB", "of the transformer's checkpoint", "ascending"), lambda row: plain(row.bytes, ".2f", 1e-6)),
    (
        Column("Bits a weight", "stored, scales and zero-points counted", "ascending"),
        lambda row: plain(row.bits_per_weight, ".2f"),
    ),
    (
        Column("Activation bits", "mean over the steps that ran", "ascending"),
        lambda row: plain(row.average_bits, ".2f"),
    ),
    (Column("Passes reused,\u00a0%", "skipped by TeaCache"), lambda row: plain(row.reused, ".0f", 100.0)),
)


def _column(name: str) -> Column:
    metric = METRICS[name]
    arrow = {True: "\u00a0↑", False: "\u00a0↓", None: ""}[metric.more_is_better]
    heading = metric.heading[0].upper() + metric.heading[1:].replace(" (", "\u00a0(") + arrow
    return Column(heading, metric.meaning, "ascending" if metric.more_is_better is False else "descending")


def _quality(name: str, row: Row) -> Cell:
    if name not in row.metrics:
        return Cell("–")
    metric, found = METRICS[name], row.metrics[name]
    mean, low, high = (format(value * metric.unit, metric.form) for value in (found.mean, found.low, found.high))
    return Cell(mean, found.mean, f"{low}–{high}", mark=metric.verdict(row.differences.get(name)))


def css_of(label: str) -> str:
    """The style of a method: ours stand out."""
    return "ours" if label in _OURS else "rival"
