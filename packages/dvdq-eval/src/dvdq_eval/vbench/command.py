"""VBench's scores, by its own code in an environment of its own."""

from __future__ import annotations

import typer

from dvdq_eval.vbench.commands.generate import generate
from dvdq_eval.vbench.commands.report import report
from dvdq_eval.vbench.commands.score import score
from dvdq_eval.vbench.commands.setup import plant_weights, setup

app = typer.Typer(help=__doc__, no_args_is_help=True)
app.command()(setup)
app.command("plant")(plant_weights)
for command in (generate, score, report):
    app.command()(command)
