"""``dvdq-eval report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvdq_eval.progress import progress_bars
from dvdq_eval.report.write import TITLE, write_report
from dvdq_models.cli.console import say


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Stores of videos, tables, latency.json, memory.json, layers.json, in any mixture."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page; an earlier one is replaced.")] = Path("out/report.html"),
    prompts: Annotated[int, typer.Option(min=1, help="Whose videos are shown; the tables are of all.")] = 4,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Show the videos of these, e.g. 'DVD-Quant W4A4' or MinMax; may be given again."),
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = TITLE,
) -> None:
    """Videos in step, tables and plots of all that lies in some folders, as one HTML file that needs no network."""
    with progress_bars() as tell:
        written = write_report(folders, out, title=title, prompts=prompts, methods=method or (), tell=tell)
    say(written, f" {written.stat().st_size / 1e6:.1f} MB")
