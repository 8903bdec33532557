"""``dvdq-eval vbench generate``."""

from __future__ import annotations

import typer
from rich.console import Console

from dvdq_eval.experiments import options as videos_of
from dvdq_eval.progress import progress_bars
from dvdq_eval.scale import generate_all
from dvdq_eval.scale.command import tell_failures
from dvdq_eval.vbench import options
from dvdq_eval.vbench.study import open_asked
from dvdq_models.running.placement import Offload


def generate(
    context: typer.Context,
    pipeline: videos_of.Pipeline = "wan",
    method: videos_of.Method = None,
    dimension: options.Dimensions = None,
    prompts: options.Prompts = None,
    preparing: videos_of.Preparing = None,
    videos: options.Videos = None,
    samples: options.Samples = None,
    steps: videos_of.Steps = None,
    settings: videos_of.Settings = None,
    store: videos_of.Stored = videos_of.STORE,
    device: videos_of.Device = "cpu",
    offload: videos_of.OffloadTo = Offload.NONE,
    workers: videos_of.Workers = 1,
    address: videos_of.Address = None,
    threads: videos_of.Threads = 1,
) -> None:
    """Make the videos that the dimensions need, of full precision and of methods; resumable."""
    asked = open_asked("vbench generate", context.params)
    with progress_bars() as tell:
        failures = generate_all(
            asked.study, asked.store, asked.methods, tell, workers=workers, address=address, threads=threads
        )
    Console().print(f"[bold]{asked.store.folder}[/bold]", soft_wrap=True, highlight=False)
    tell_failures(failures, len(asked.methods) * len(asked.study.jobs))
