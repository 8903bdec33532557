"""How figures are written, everywhere alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from dvdq_eval.intervals import Interval
from dvdq_eval.sheets.sheet import NOTHING, Cell


def figure(value: float | None, form: str, unit: float = 1.0, *, css: str = "") -> Cell:
    """A number in ``unit``, or a dash."""
    return NOTHING if value is None else Cell(format(value * unit, form), value, css=css)


def with_interval(found: Interval, form: str, unit: float = 1.0) -> Cell:
    """A mean with its interval."""
    mean, low, high = (value * unit for value in (found.mean, found.low, found.high))
    half = max(found.high - found.mean, found.mean - found.low) * unit
    return Cell(format(mean, form), found.mean, margin=format(half, form), span=span(low, high, form))


def times(ratio: float) -> Cell:
    """How many times as much: ``"2.93 ×"``."""
    return Cell(f"{ratio:.2f} ×", ratio)


def megabytes(size: int | None) -> Cell:
    """Bytes in a unit that fits, decimal: ``"14.2 MB"``, ``"28.6 GB"``."""
    if size is None:
        return NOTHING
    return Cell(f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB", size)


def seconds(value: float, *, note: str = "") -> Cell:
    """Three digits."""
    return Cell(seconds_text(value), value, note=note)


def seconds_text(value: float) -> str:
    """The same as text."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def span(low: float, high: float, form: str) -> str:
    """From end to end: ``"28.1–32.0"``."""
    return f"{low:{form}}–{high:{form}}"


def names(labels: Sequence[str]) -> list[Cell]:
    """The first cells of rows, which sort into the order that they have."""
    return [Cell(label, place) for place, label in enumerate(labels)]


def best(cells: Sequence[Cell], choose: Callable[[Sequence[float]], float]) -> list[Cell]:
    """A column whose best figure, the one that ``choose`` takes, stands out."""
    known = [cell.value for cell in cells if isinstance(cell.value, float)]
    chosen = choose(known) if known else None
    marked = (dataclasses.replace(cell, css="best") for cell in cells)
    return [new if old.value == chosen and known else old for old, new in zip(cells, marked, strict=True)]
