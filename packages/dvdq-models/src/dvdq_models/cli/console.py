"""Where the command writes: tables and progress for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

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
from rich.text import Text

from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError

console = Console()
_errors = Console(stderr=True)


class TypedError(DvdqError):
    """Bad input in what the user typed, known before any work."""


@contextmanager
def typed() -> Iterator[None]:
    """Errors in the block are about what the user typed."""
    try:
        yield
    except TypedError:
        raise
    except DvdqError as error:
        raise TypedError(error.operation, expected=error.expected, got=error.got, where=error.where) from error


def run_command(command: Callable[[], Any]) -> None:
    """Run a command: what cannot be done ends in one line on standard error.

    Exit code 2 is for what the user typed, 1 for what failed.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character shows a mark instead: the work is worth more than an arrow.
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
    try:
        command()
    except TypedError as error:
        _end(str(error), 2)
    except DvdqError as error:
        _end(str(error), 1)
    except BrokenPipeError:  # whoever reads has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # what is left is flushed there when Python ends
        sys.exit(1)
    except OSError as error:
        _end(f"{error.strerror or one_line(error)}{'' if error.filename is None else f': {error.filename}'}", 1)
    except MemoryError as error:
        _end(f"out of memory: {one_line(error)}", 1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be imported for this
            raise
        _end(f"out of memory: {one_line(error)}", 1)


def _end(message: str, code: int) -> NoReturn:
    fail(message)
    sys.exit(code)


def fail(message: str) -> None:
    """One line on standard error."""
    _errors.print(Text("error: ", style="red") + Text(printable(message), style="default"), soft_wrap=True)


def say(name: object, rest: str) -> None:
    """A name in bold and what is said of it, on standard output; nothing in either is taken for markup."""
    console.print(Text(printable(str(name)), style="bold") + Text(rest, style="not bold"), soft_wrap=True)


def printable(text: str) -> str:
    """``text`` with what would break or leave the line, such as a line end in a file's name, as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
