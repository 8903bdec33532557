"""Whether the videos that VBench is to judge are there: it would warn of a missing one in passing, and go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dvdq_eval.vbench.dimensions import Dimension
from dvdq_eval.vbench.prompts import jobs_of
from dvdq_eval.vbench.staged import smaller_side
from dvdq_eval.vbench.study import Asked
from dvdq_eval.videos.store import MethodFolder
from dvdq_eval.videos.study import Job
from dvdq_reference.spec.errors import DvdqError

OPERATION = "vbench score"


@dataclass(frozen=True)
class Coverage:
    """A dimension's jobs by what became of them."""

    there: tuple[Job, ...]
    failed: tuple[Job, ...]
    missing: tuple[Job, ...]


def coverage(folder: MethodFolder | None, jobs: Iterable[Job]) -> Coverage:
    """Which of ``jobs`` have a video, failed, or were not made; without a folder none was."""
    there, failed, missing = [], [], []
    for job in jobs:
        if folder is not None and folder.has(job):
            there.append(job)
        elif folder is not None and folder.failure(job) is not None:
            failed.append(job)
        else:
            missing.append(job)
    return Coverage(tuple(there), tuple(failed), tuple(missing))


def check_videos(asked: Asked, *, partial: bool) -> None:
    """Look at every method and dimension before the first is scored.

    Raises:
        DvdqError: videos that were neither made nor failed, unless ``partial``; none at all; or frames that are too
            small for a dimension.
    """
    for method in asked.methods:
        folder = asked.folder(method)
        for dimension in asked.dimensions:
            found, where = coverage(folder, jobs_of(asked.study, dimension)), f"{method.title}: {dimension.name}"
            total = len(found.there) + len(found.failed) + len(found.missing)
            if not found.there or (found.missing and not partial):
                expected = f"{total} videos of `dvdq-eval vbench generate`"
                got = f"{len(found.there)}, {len(found.failed)} failed and {len(found.missing)} missing"
                raise DvdqError(OPERATION, where=where, expected=expected, got=got)
            assert folder is not None
            _check_size(dimension, folder, found.there[0], where)


def _check_size(dimension: Dimension, folder: MethodFolder, job: Job, where: str) -> None:
    """All videos of a study are of one size."""
    side = smaller_side(folder.folder / f"{job.name}.mkv")
    if side < dimension.smallest_side:
        raise DvdqError(OPERATION, where=where, expected=f"sides of {dimension.smallest_side} pixels or more", got=side)
