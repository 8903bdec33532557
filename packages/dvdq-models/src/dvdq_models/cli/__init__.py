"""The ``dvdq`` command: one file a subcommand; other packages add theirs through the entry points ``dvdq.commands``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from dvdq_models.cli.calibrate import calibrate
from dvdq_models.cli.console import fail
from dvdq_models.cli.generate import generate
from dvdq_models.cli.inspect import inspect
from dvdq_models.cli.quantize import quantize
from dvdq_models.cli.tune_delta import tune
from dvdq_reference.spec.errors import DvdqError

app = typer.Typer(
    help="Data-free 4-bit quantization of video diffusion transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
for command in (quantize, generate, inspect, calibrate):
    app.command()(command)
app.command(name="tune-delta")(tune)
for extension in entry_points(group="dvdq.commands"):
    app.command(name=extension.name)(extension.load())


def main() -> None:
    """Run the command; bad input ends in one line on standard error and exit code 1."""
    try:
        app()
    except DvdqError as error:
        fail(str(error))
        sys.exit(1)
