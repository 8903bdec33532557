"""Tables as data: what their columns are and what their cells say, in Markdown, on a terminal and on a page alike."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from dvdq_eval.intervals import Interval
from dvdq_models.cli.console import megabytes as in_bytes


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    Attributes:
        heading: its name, e.g. ``latent error``.
        meaning: more of it, which a page shows when pointed at.
        first: the order that a first click on a page sorts into.
        note: what the notes of its cells are, e.g. ``p20–p80``.
        more_is_better: None where neither is.
        group: a name above neighbouring columns that have the same, on a page.
        words: whether its cells are words, which stand to the left.
        aside: whether it is left to pages, which have room.
    """

    heading: str
    meaning: str = ""
    first: Literal["ascending", "descending"] = "descending"
    note: str = ""
    more_is_better: bool | None = None
    group: str = ""
    words: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Cell:
    """A figure as it is written.

    Attributes:
        text: the figure.
        value: what a page sorts by; None sorts last.
        margin: half of the interval around it, for ``±``.
        span: the same interval from end to end, which a page has in its place.
        note: words beside it.
        mark: whether it is better or worse than what its row is held against, by more than chance.
        css: a style of the page.
    """

    text: str
    value: float | str | None = None
    margin: str = ""
    span: str = ""
    note: str = ""
    mark: Literal["", "better", "worse"] = ""
    css: str = ""

    @property
    def beside(self) -> str:
        """What a page writes below the figure."""
        return ", ".join(filter(None, (self.span, self.note)))


NOTHING = Cell("–")
SIGNS = {"": "", "better": "▲", "worse": "▼"}


@dataclass(frozen=True)
class Sheet:
    """A table that a page sorts by any column; the first cell of each row names it.

    Attributes:
        caption: what it shows.
        columns, rows: as many cells in each row as there are columns.
        folded: whether a page has it behind its caption until asked for.
        note: what has to be said with it.
    """

    kind: ClassVar[str] = "sheet"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Names above columns with how many each stands over; no names, no list."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


def sheet_of(caption: str, columns: Sequence[tuple[Column, Sequence[Cell]]]) -> Sheet:
    """A sheet from columns with their cells; one that has no figure in any row is left out."""
    there = [(column, cells) for column, cells in columns if any(cell.value is not None for cell in cells)]
    rows = list(zip(*(cells for _, cells in there), strict=True))
    return Sheet(caption, [column for column, _ in there], rows)


def figure(value: float | None, form: str, unit: float = 1.0) -> Cell:
    """A number in ``unit``, or a dash."""
    return NOTHING if value is None else Cell(format(value * unit, form), value)


def with_interval(found: Interval, form: str, unit: float = 1.0) -> Cell:
    """A mean with its interval."""
    mean, low, high = (value * unit for value in (found.mean, found.low, found.high))
    half = max(found.high - found.mean, found.mean - found.low) * unit
    return Cell(format(mean, form), found.mean, margin=format(half, form), span=span(low, high, form))


def times(ratio: float) -> Cell:
    """How many times as much: ``"2.93 ×"``."""
    return Cell(f"{ratio:.2f} ×", ratio)


def megabytes(size: int | None) -> Cell:
    """Bytes in a unit that fits, or a dash."""
    if size is None:
        return NOTHING
    return Cell(in_bytes(size), size)


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


def markdown(sheet: Sheet) -> str:
    """A table whose first column stands to the left and the others to the right."""
    shown = [place for place, column in enumerate(sheet.columns) if not column.aside]
    heading = [_heading(sheet.columns[place]) for place in shown]
    return _table(heading, ([cell_text(row[place]) for place in shown] for row in sheet.rows))


def cell_text(cell: Cell) -> str:
    """All of a cell in a line: ``"30.0 ± 3.0 ▲"``, ``"0.9 (0.8–1.0)"``."""
    margin = f" ± {cell.margin}" if cell.margin else ""
    note = f" ({cell.note})" if cell.note else ""
    return f"{cell.text}{margin}{note} {SIGNS[cell.mark]}".rstrip()


def _heading(column: Column) -> str:
    return f"{column.heading} ({column.note})" if column.note else column.heading


def _table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)) + "\n"


def terminal(sheet: Sheet) -> Table:
    """A table whose first column stands to the left and the others to the right, below headings as narrow as they."""
    table = Table(title=sheet.caption or None, title_justify="left", box=SIMPLE_HEAD, padding=0, collapse_padding=True)
    shown = [place for place, column in enumerate(sheet.columns) if not column.aside]
    for place in shown:
        heading = sheet.columns[place].heading
        if place == 0:
            table.add_column(heading, overflow="fold")
        else:
            needed = [*heading.split(), *(cell_text(row[place]) for row in sheet.rows)]
            table.add_column(textwrap.fill(heading, max(map(len, needed))), justify="right", no_wrap=True)
    for row in sheet.rows:
        cells = (row[place] for place in shown)
        table.add_row(*(_styled(cell_text(cell), cell.css) for cell in cells))
    return table


def _styled(text: str, css: str) -> str:
    return f"[bold]{escape(text)}[/bold]" if css == "best" else escape(text)
