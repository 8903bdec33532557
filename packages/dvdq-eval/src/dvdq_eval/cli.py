"""The ``dvdq-eval`` command: one file a subcommand, which is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import typer

from dvdq_models.cli import LateCommands
from dvdq_reference.spec.errors import DvdqError


class _Commands(LateCommands):
    def places(self) -> Mapping[str, str]:
        return {
            "evaluate": "dvdq_eval.evaluation.command:evaluate",
            "generate": "dvdq_eval.videos.command:generate",
            "quality": "dvdq_eval.quality.command:quality",
            "latency": "dvdq_eval.latency.command:latency",
            "memory": "dvdq_eval.memory.command:memory",
            "layers": "dvdq_eval.layers.command:layers",
            "table": "dvdq_eval.tables.command:table",
            "report": "dvdq_eval.report.command:report",
            "vbench": "dvdq_eval.vbench.command:app",
        }


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def dvdq_eval() -> None:
    """What quantization costs: quality, latency, memory."""


def main() -> None:
    """Run the command; bad input ends in one line on standard error and exit code 1."""
    try:
        app()
    except DvdqError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
