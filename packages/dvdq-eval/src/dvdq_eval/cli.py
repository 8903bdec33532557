"""The ``dvdq-eval`` command: one file a subcommand."""

from __future__ import annotations

import sys

import typer

from dvdq_eval.layers.command import layers
from dvdq_eval.quality.command import quality
from dvdq_eval.scale.command import generate
from dvdq_eval.tables.command import table
from dvdq_reference.spec.errors import DvdqError

app = typer.Typer(
    help="What quantization costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
for command in (generate, quality, layers, table):
    app.command()(command)


def main() -> None:
    """Run the command; bad input ends in one line on standard error and exit code 1."""
    try:
        app()
    except DvdqError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
