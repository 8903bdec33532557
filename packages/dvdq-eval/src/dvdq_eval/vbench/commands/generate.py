"""``dvdq-eval vbench generate``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from dvdq_eval.progress import progress_bars
from dvdq_eval.scale import generate_all
from dvdq_eval.vbench import options
from dvdq_eval.vbench.study import open_asked


def generate(
    context: typer.Context,
    pipeline: options.Pipeline = "wan",
    method: options.Method = None,
    dimension: options.Dimensions = None,
    prompts: options.Prompts = None,
    preparing: options.Preparing = None,
    videos: options.Videos = None,
    samples: options.Samples = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    store: options.Stored = options.STORE,
    device: options.Device = "cpu",
    workers: Annotated[int, typer.Option(min=1, help="Pipelines at once, by Ray; on GPUs, one each.")] = 1,
    address: Annotated[str | None, typer.Option(help="A Ray cluster, e.g. auto; default: this machine.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker; other counts, other rounding.")] = 1,
) -> None:
    """Make the videos that the dimensions need, of full precision and of methods; resumable."""
    asked = open_asked("vbench generate", context.params)
    with progress_bars() as tell:
        failures = generate_all(
            asked.study, asked.store, asked.methods, tell, workers=workers, address=address, threads=threads
        )
    Console().print(f"[bold]{asked.store.folder}[/bold]", soft_wrap=True, highlight=False)
    if failures:
        total = len(asked.methods) * len(asked.study.jobs)
        typer.echo(f"{failures} of {total} videos failed: their .failed.json says why", err=True)
        raise typer.Exit(1)
