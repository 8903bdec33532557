"""``dvdq-eval generate``: the videos of methods, by one worker or many."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from dvdq_eval.experiments import options
from dvdq_eval.experiments.opening import open_study, parse_methods
from dvdq_eval.experiments.store import Store
from dvdq_eval.progress import progress_bars
from dvdq_eval.scale.generate import generate_all
from dvdq_eval.scale.streak import OPERATION
from dvdq_models.running.placement import Offload


def generate(
    pipeline: options.Pipeline = "wan",
    method: options.Method = None,
    videos: Annotated[int, typer.Option(min=2, help="Prompts.")] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Videos of each prompt, each from noise of its own.")] = 1,
    steps: options.Steps = None,
    prompts: options.Prompts = None,
    preparing: options.Preparing = None,
    settings: options.Settings = None,
    store: options.Stored = options.STORE,
    workers: options.Workers = 1,
    address: options.Address = None,
    device: options.Device = "cpu",
    offload: options.OffloadTo = Offload.NONE,
    threads: options.Threads = 1,
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
        offload=offload,
    )
    kept, methods = Store(store, study), parse_methods(OPERATION, method or ())
    with progress_bars() as tell:
        failures = generate_all(study, kept, methods, tell, workers=workers, address=address, threads=threads)
    Console().print(f"[bold]{kept.folder}[/bold]", soft_wrap=True, highlight=False)
    tell_failures(failures, len(methods) * len(study.jobs))


def tell_failures(failures: int, total: int) -> None:
    """End with 1 if some videos failed."""
    if failures:
        typer.echo(f"{failures} of {total} videos failed: their .failed.json says why", err=True)
        raise typer.Exit(1)
