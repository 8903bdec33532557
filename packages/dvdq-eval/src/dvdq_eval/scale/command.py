"""``dvdq-eval generate``: the videos of methods, by one worker or many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dvdq_eval.experiments.opening import open_study, parse_methods
from dvdq_eval.experiments.store import Store
from dvdq_eval.progress import progress_bars
from dvdq_eval.scale.generate import OPERATION, generate_all
from dvdq_models.moving_shapes import BUNDLED


def generate(
    pipeline: Annotated[
        str, typer.Option(help=f"A bundled pipeline ({', '.join(BUNDLED)}) or the folder of any other.")
    ] = "wan",
    method: Annotated[
        list[str] | None, typer.Option(help="RECIPE:BITS, e.g. dvd-quant:W4A6; may be given again.")
    ] = None,
    videos: Annotated[int, typer.Option(min=2, help="Prompts.")] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Videos of each prompt, each from noise of its own.")] = 1,
    steps: Annotated[int | None, typer.Option(min=4, help="Denoising steps; default: the pipeline's.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="One prompt a line; not for bundled ones.")] = None,
    preparing: Annotated[
        Path | None, typer.Option(help="Other prompts, to calibrate and to choose δ on; not for bundled ones.")
    ] = None,
    settings: Annotated[
        str | None, typer.Option(help='Further arguments of the pipeline\'s call as JSON: {"height": 480}.')
    ] = None,
    store: Annotated[
        Path, typer.Option(help="Folder that keeps every video; a run goes on with what is there.")
    ] = Path("out/videos"),
    workers: Annotated[int, typer.Option(min=1, help="Pipelines at once, by Ray; on GPUs, one each.")] = 1,
    address: Annotated[str | None, typer.Option(help="A Ray cluster, e.g. auto; default: this machine.")] = None,
    device: Annotated[str, typer.Option(help="cpu in float32, or cuda in bfloat16.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker; other counts, other rounding.")] = 1,
) -> None:
    """Make the videos of full precision and of methods; tables, scores and the report find them in the store."""
    study = open_study(
        OPERATION,
        pipeline,
        videos=videos,
        samples=samples,
        steps=steps,
        prompts=prompts,
        preparing=preparing,
        settings=settings,
        device=device,
    )
    kept, methods = Store(store, study), parse_methods(OPERATION, method or ())
    with progress_bars() as tell:
        failures = generate_all(study, kept, methods, tell, workers=workers, address=address, threads=threads)
    Console().print(f"[bold]{kept.folder}[/bold]", soft_wrap=True, highlight=False)
    if failures:
        total = len(methods) * len(study.jobs)
        typer.echo(f"{failures} of {total} videos failed: their .failed.json says why", err=True)
        raise typer.Exit(1)
