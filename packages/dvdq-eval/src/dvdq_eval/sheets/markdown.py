"""A sheet as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dvdq_eval.sheets.sheet import SIGNS, Cell, Column, Sheet


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
