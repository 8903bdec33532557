"""``dvdq-eval evaluate PIPELINE``: everything about a pipeline, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dvdq_eval.evaluation.run import OPERATION
from dvdq_eval.evaluation.run import evaluate as run
from dvdq_eval.experiments.opening import open_study, parse_methods
from dvdq_eval.experiments.store import Store
from dvdq_eval.progress import progress_bars
from dvdq_models.moving_shapes import BUNDLED

METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A6", "dvd-quant:W4A4", "minmax:W4A4")


def evaluate(
    pipeline: Annotated[
        str, typer.Argument(help=f"A bundled pipeline ({', '.join(BUNDLED)}) or the folder of any other.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"RECIPE:BITS; may be given again. Default: {', '.join(METHODS)}."),
    ] = None,
    videos: Annotated[int, typer.Option(min=2, help="Prompts.")] = 16,
    steps: Annotated[int | None, typer.Option(min=4, help="Denoising steps; default: the pipeline's.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="One prompt a line; those after the first --videos choose δ. Not for bundled ones."),
    ] = None,
    settings: Annotated[
        str | None, typer.Option(help='The pipeline\'s call as JSON: {"num_frames": 81, "height": 480, "width": 832}.')
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to: report.html and all that it shows.")] = Path(
        "out/evaluation"
    ),
    store: Annotated[Path | None, typer.Option(help="Folder that keeps the videos; default: OUT/videos.")] = None,
    shown: Annotated[int, typer.Option(min=1, help="Prompts whose videos are in the page.")] = 4,
    workers: Annotated[int, typer.Option(min=1, help="Pipelines at once, by Ray; on GPUs, one each.")] = 1,
    address: Annotated[str | None, typer.Option(help="A Ray cluster, e.g. auto; default: this machine.")] = None,
    device: Annotated[str, typer.Option(help="cpu in float32, or cuda in bfloat16.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker.")] = 1,
) -> None:
    """Make videos by several methods, measure quality, weight errors, latency and memory, and write one HTML page."""
    study = open_study(
        OPERATION, pipeline, videos=videos, steps=steps, prompts=prompts, settings=settings, device=device
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
