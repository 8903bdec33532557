"""``dvdq-eval evaluate PIPELINE``: everything about a pipeline, in one command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from dvdq_eval.cli import options
from dvdq_eval.cli.options import StudyOptions, takes
from dvdq_eval.evaluation import OPERATION
from dvdq_eval.evaluation import evaluate as run
from dvdq_eval.methods import parse_methods
from dvdq_eval.progress import progress_bars
from dvdq_eval.videos.store import Store
from dvdq_models.cli.console import say

METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A6", "dvd-quant:W4A4", "minmax:W4A4")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(StudyOptions):
    """A pipeline is given by itself, and fewer prompts do."""

    pipeline: options.PipelineArgument = field()
    videos: Annotated[int, typer.Option(min=2, help="Prompts.")] = 16


@takes(EvaluationOptions)
def evaluate(
    asked: EvaluationOptions,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"RECIPE:BITS; may be given again. Default: {', '.join(METHODS)}."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to: report.html and all that it shows.")] = Path(
        "out/evaluation"
    ),
    store: Annotated[Path | None, typer.Option(help="Folder that keeps the videos; default: OUT/videos.")] = None,
    shown: Annotated[int, typer.Option(min=1, help="Prompts whose videos are in the page.")] = 4,
    workers: options.Workers = 1,
    address: options.Address = None,
    threads: options.Threads = 1,
) -> None:
    """Make videos by several methods, measure quality, weight errors, latency and memory, and write one HTML page."""
    study = asked.open(OPERATION)
    methods = parse_methods(OPERATION, method or METHODS)
    with progress_bars() as tell:
        written = run(
            Store(store or out / "videos", study, tell),
            methods,
            out,
            model=asked.pipeline,
            workers=workers,
            address=address,
            threads=threads,
            prompts=shown,
            tell=tell,
        )
    say(written, "")
