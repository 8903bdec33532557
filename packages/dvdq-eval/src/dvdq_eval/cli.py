"""The ``dvdq-eval`` command: one file a subcommand."""

from __future__ import annotations

import sys

import typer

from dvdq_eval.evaluation.command import evaluate
from dvdq_eval.latency.command import latency
from dvdq_eval.layers.command import layers
from dvdq_eval.memory.command import memory
from dvdq_eval.quality.command import quality
from dvdq_eval.report.command import report
from dvdq_eval.tables.command import table
from dvdq_eval.vbench.command import app as vbench
from dvdq_eval.videos.command import generate
from dvdq_reference.spec.errors import DvdqError

app = typer.Typer(
    help="What quantization costs: quality, latency, memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
for command in (evaluate, generate, quality, latency, memory, layers, table, report):
    app.command()(command)
app.add_typer(vbench, name="vbench")


def main() -> None:
    """Run the command; bad input ends in one line on standard error and exit code 1."""
    try:
        app()
    except DvdqError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
