"""The ``dvdq-eval`` command: one file a subcommand, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from dvdq_models.cli import LateCommands
from dvdq_models.cli.console import run_command


class _Commands(LateCommands):
    def places(self) -> Mapping[str, str]:
        return {
            "evaluate": "dvdq_eval.cli.evaluate:evaluate",
            "generate": "dvdq_eval.cli.generate:generate",
            "quality": "dvdq_eval.cli.quality:quality",
            "latency": "dvdq_eval.cli.latency:latency",
            "memory": "dvdq_eval.cli.memory:memory",
            "layers": "dvdq_eval.cli.layers:layers",
            "table": "dvdq_eval.cli.table:table",
            "report": "dvdq_eval.cli.report:report",
            "vbench": "dvdq_eval.cli.vbench:app",
        }


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def dvdq_eval() -> None:
    """What quantization costs: quality, latency, memory."""


def main() -> None:
    """Run the command; what cannot be done ends in one line on standard error."""
    run_command(app)
