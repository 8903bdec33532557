"""``dvdq-eval evaluate PIPELINE``: everything about a pipeline, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dvdq_eval.evaluation.run import OPERATION
from dvdq_eval.evaluation.run import evaluate as run
from dvdq_eval.experiments import options
from dvdq_eval.experiments.opening import open_study, parse_methods
from dvdq_eval.experiments.store import Store
from dvdq_eval.progress import progress_bars
from dvdq_models.running.placement import Offload

METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A6", "dvd-quant:W4A4", "minmax:W4A4")


def evaluate(
    pipeline: options.PipelineArgument,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"RECIPE:BITS; may be given again. Default: {', '.join(METHODS)}."),
    ] = None,
    videos: Annotated[int, typer.Option(min=2, help="Prompts.")] = 16,
    steps: options.Steps = None,
    prompts: options.Prompts = None,
    preparing: options.Preparing = None,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="Folder to write to: report.html and all that it shows.")] = Path(
        "out/evaluation"
    ),
    store: Annotated[Path | None, typer.Option(help="Folder that keeps the videos; default: OUT/videos.")] = None,
    shown: Annotated[int, typer.Option(min=1, help="Prompts whose videos are in the page.")] = 4,
    workers: options.Workers = 1,
    address: options.Address = None,
    device: options.Device = "cpu",
    offload: options.OffloadTo = Offload.NONE,
    threads: options.Threads = 1,
) -> None:
    """Make videos by several methods, measure quality, weight errors, latency and memory, and write one HTML page."""
    study = open_study(
        OPERATION,
        pipeline,
        videos=videos,
        steps=steps,
        prompts=prompts,
        preparing=preparing,
        settings=settings,
        device=device,
        offload=offload,
    )
    methods = parse_methods(OPERATION, method or METHODS)
    with progress_bars() as tell:
        written = run(
            study,
            Store(store or out / "videos", study),
            methods,
            out,
            model=pipeline,
            workers=workers,
            address=address,
            threads=threads,
            prompts=shown,
            tell=tell,
        )
    Console().print(f"[bold]{written}[/bold]", soft_wrap=True, highlight=False)
