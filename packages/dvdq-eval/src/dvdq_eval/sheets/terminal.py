"""A sheet on a terminal."""

from __future__ import annotations

import textwrap

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from dvdq_eval.sheets.markdown import cell_text
from dvdq_eval.sheets.sheet import Sheet


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
