"""``dvdq-eval generate``: the videos of methods, by one worker or many."""

from __future__ import annotations

from typing import Annotated

import typer

from dvdq_eval.cli import options
from dvdq_eval.cli.options import StudyOptions, takes
from dvdq_eval.methods import parse_methods
from dvdq_eval.progress import progress_bars
from dvdq_eval.videos.fill import OPERATION, fill
from dvdq_eval.videos.store import Store
from dvdq_models.cli.console import say


@takes(StudyOptions)
def generate(
    asked: StudyOptions,
    method: options.Methods = None,
    samples: Annotated[int, typer.Option(min=1, help="Videos of each prompt, each from noise of its own.")] = 1,
    store: options.Stored = options.STORE,
    workers: options.Workers = 1,
    address: options.Address = None,
    threads: options.Threads = 1,
) -> None:
    """Make the videos of full precision and of methods; tables, scores and the report find them in the store."""
    study, methods = asked.open(OPERATION, samples), parse_methods(OPERATION, method or ())
    with progress_bars() as tell:
        kept = Store(store, study, tell)
        failures = fill(kept, methods, tell, workers=workers, address=address, threads=threads)
    say(kept.folder, "")
    tell_failures(failures, len(methods) * len(study.jobs))


def tell_failures(failures: int, total: int) -> None:
    """End with 1 if some videos failed."""
    if failures:
        typer.echo(f"{failures} of {total} videos failed: their .failed.json says why", err=True)
        raise typer.Exit(1)
