"""The ``dvdq-eval`` command."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dvdq_eval.compare import Comparison, compare
from dvdq_reference.spec.errors import DvdqError

app = typer.Typer(
    help="What quantization costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def _commands() -> None:
    """What quantization costs."""


@app.command()
def quality(
    result: Annotated[Path, typer.Argument(help="A video (.mp4) or latent (.npy), or a folder of them.")],
    reference: Annotated[Path, typer.Argument(help="The same in full precision; folders are matched by file name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Distance of videos or latents from their reference: PSNR and SSIM, or relative error."""
    try:
        rows = compare(result, reference)
    except DvdqError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps([{k: _finite(v) for k, v in asdict(row).items()} for row in rows], indent=2))
    else:
        Console().print(_table(rows))


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(rows: list[Comparison]) -> Table:
    table = Table("file")
    for name in ("PSNR dB", "SSIM", "relative error"):
        table.add_column(name, justify="right")
    for row in rows:
        forms = ((row.psnr_db, ".2f"), (row.ssim, ".4f"), (row.relative_error, ".4f"))
        table.add_row(row.name, *("–" if value is None else format(value, form) for value, form in forms))
    return table
