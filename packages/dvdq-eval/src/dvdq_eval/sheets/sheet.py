"""A table as data: what its columns are, and what its cells say, to be written in any form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


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


def sheet_of(caption: str, columns: Sequence[tuple[Column, Sequence[Cell]]], *, folded: bool = False) -> Sheet:
    """A sheet from columns with their cells; one that has no figure in any row is left out."""
    there = [(column, cells) for column, cells in columns if any(cell.value is not None for cell in cells)]
    rows = list(zip(*(cells for _, cells in there), strict=True))
    return Sheet(caption, [column for column, _ in there], rows, folded)
