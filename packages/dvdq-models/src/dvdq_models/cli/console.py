"""Where the command writes: tables and progress for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console()
_errors = Console(stderr=True)


def fail(message: str) -> None:
    """One line on standard error."""
    _errors.print(f"[red]error:[/red] {message}", highlight=False, soft_wrap=True)


def print_json(values: Any) -> None:
    """``values`` on standard output, and nothing else."""
    typer.echo(json.dumps(values, indent=2))


def megabytes(size: int) -> str:
    """Bytes in a unit that fits, decimal: ``"14.2 MB"``, ``"28.6 GB"``."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A progress bar with count, elapsed and remaining time; on standard error, so that output can be piped."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_errors, disable=quiet) as progress:
        yield progress
