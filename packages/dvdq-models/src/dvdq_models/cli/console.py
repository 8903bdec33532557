"""Where the command writes: tables and progress for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

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


@contextmanager
def byte_progress(description: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar in bytes, with rate and remaining time; yields what to call with (name, done, total).

    The rate is of this run: what the first call says is done was done before.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=_errors, disable=quiet)
    task = progress.add_task(description)
    with ExitStack() as shown:  # from the first call on: what fails before it is one line

        def advance(name: str, done: int, total: int) -> None:
            if name == "":
                progress.reset(task, completed=done, total=total)
                shown.enter_context(progress)
            progress.update(task, completed=done)

        yield advance
