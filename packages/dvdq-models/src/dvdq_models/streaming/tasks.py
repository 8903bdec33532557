"""Work in parts, each noted when its bytes are on the disk, so that a run that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from dvdq_models.checkpoint.checksums import check_sum
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.files.workspace import Workspace
from dvdq_models.streaming.plan import Step
from dvdq_models.streaming.source import OPERATION, Source

Progress = Callable[[str, int, int], None]
"""Called after each part with its name, how many bytes of the source are done and how many there are."""
COMMIT_BYTES = 2**28
"""Bytes of the source after which results are synced and noted in the journal: what a kill costs at most."""


@dataclass(frozen=True)
class Task:
    """A part of the work: ``run`` leaves its bytes in files, ``nbytes`` of the source are then done."""

    name: str
    nbytes: int
    run: Callable[[], None]


class Plan(Protocol):
    """What becomes of one transformer's tensors."""

    @property
    def subfolder(self) -> str:
        """Of the transformer in its pipeline."""
        ...

    @property
    def steps(self) -> Sequence[Step]:
        """One for each tensor that is read."""
        ...


def tensor_tasks(source: Source, plans: Sequence[Plan], files: Sequence[WeightFiles]) -> list[Task]:
    """Checksums first, so that a broken file is known before hours of work; then tensors, of each plan to its files."""
    checks = [
        Task(f"sha256 {file}", file.stat().st_size, partial(check_sum, OPERATION, file, digest))
        for file, digest in source.digests().items()
    ]
    return checks + [
        Task(f"{plan.subfolder}/{step.name}", step.source.type.nbytes, partial(_write, step, weights))
        for plan, weights in zip(plans, files, strict=True)
        for step in plan.steps
    ]


def _write(step: Step, weights: WeightFiles) -> None:
    for name, tensor in step.apply(step.source.read()).items():
        weights.write(name, tensor)


def run_tasks(work: Workspace, tasks: list[Task], files: list[WeightFiles], progress: Progress | None) -> int:
    """Do what is not done yet; how many bytes of the source were."""
    total = sum(task.nbytes for task in tasks)
    resumed = done = sum(task.nbytes for task in tasks if task.name in work.done)
    if progress is not None:
        progress("", done, total)
    pending: list[Task] = []

    def commit() -> None:
        for weights in files:
            weights.sync()
        work.record(task.name for task in pending)
        pending.clear()

    try:
        for task in tasks:
            if task.name in work.done:
                continue
            task.run()
            pending.append(task)
            done += task.nbytes
            if sum(task.nbytes for task in pending) >= COMMIT_BYTES:
                commit()
            if progress is not None:
                progress(task.name, done, total)
    finally:
        commit()
    return resumed
