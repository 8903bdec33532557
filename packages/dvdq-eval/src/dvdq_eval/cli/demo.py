"""``dvdq demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dvdq_eval.cli import options
from dvdq_eval.demo.results import demo_sheet
from dvdq_eval.demo.run import demo_study, run_demo
from dvdq_eval.progress import progress_bars
from dvdq_eval.records import to_json
from dvdq_eval.sheets import terminal
from dvdq_models.cli.console import console, say


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier demo there is replaced.")] = Path("out/demo"),
    family: Annotated[Literal["wan", "hunyuan-video"], typer.Option(help="Which bundled model.")] = "wan",
    prompts: Annotated[int, typer.Option(min=1, max=16, help="How many unseen prompts.")] = 4,
    steps: Annotated[int | None, typer.Option(min=4, help="Denoising steps; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the prompts and the noise.")] = 0,
    threads: options.OwnThreads = None,
    json: Annotated[bool, typer.Option("--json", help="Print results.json instead of the table.")] = False,
) -> None:
    """Quantize a bundled video model and compare its videos with full precision."""
    options.set_threads(threads)
    study = demo_study(family, prompts, seed, steps)
    with progress_bars() as tell:
        results = run_demo(study, out, tell)
    if json:
        typer.echo(to_json(results), nl=False)
        return
    console.print(terminal(demo_sheet(results)))
    say(out / "report.html", ": videos and all figures")
