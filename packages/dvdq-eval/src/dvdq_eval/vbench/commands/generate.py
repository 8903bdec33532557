"""``dvdq-eval vbench generate``."""

from __future__ import annotations

from rich.console import Console

from dvdq_eval.progress import progress_bars
from dvdq_eval.vbench.study import VBenchOptions
from dvdq_eval.videos import options as videos_of
from dvdq_eval.videos.command import tell_failures
from dvdq_eval.videos.fill import fill
from dvdq_eval.videos.options import takes


@takes(VBenchOptions)
def generate(
    given: VBenchOptions,
    workers: videos_of.Workers = 1,
    address: videos_of.Address = None,
    threads: videos_of.Threads = 1,
) -> None:
    """Make the videos that the dimensions need, of full precision and of methods; resumable."""
    with progress_bars() as tell:
        asked = given.ask("vbench generate", tell)
        failures = fill(asked.store, asked.methods, tell, workers=workers, address=address, threads=threads)
    Console().print(f"[bold]{asked.store.folder}[/bold]", soft_wrap=True, highlight=False)
    tell_failures(failures, len(asked.methods) * len(asked.study.jobs))
