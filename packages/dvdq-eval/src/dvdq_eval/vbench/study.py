"""The videos that VBench is asked about, from what a command was given, and whether they are there."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dvdq_eval.progress import Tell, silent
from dvdq_eval.vbench.dimensions import DIMENSIONS, Dimension, chosen
from dvdq_eval.vbench.environment import vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.prompts import SAMPLES, StandardStudy, jobs_of
from dvdq_eval.vbench.staged import smaller_side
from dvdq_eval.videos.method import Method
from dvdq_eval.videos.options import STORE, Methods, PipelineOptions, Stored, StudyOptions, parse_methods, read_settings
from dvdq_eval.videos.prepare import prepared_files, tuned
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Job, Study
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import check_offload
from dvdq_models.running.prompts import read_prompts
from dvdq_reference.spec.errors import DvdqError

STANDARD = "standard"
BUNDLED_VIDEOS = 64
OPERATION = "vbench score"


@dataclass(frozen=True)
class Asked:
    """Which videos of which methods, and what VBench is to say of them."""

    store: Store
    methods: tuple[Method, ...]
    dimensions: tuple[Dimension, ...]

    @property
    def study(self) -> Study:
        """What all videos share."""
        return self.store.study

    def folder(self, method: Method) -> MethodFolder | None:
        """Where a method's videos are; None if none were made yet."""
        if not all(prepared_files(self.store, method).values()):
            return None
        folder = self.store.method(tuned(self.store, method))
        return None if folder.about is None else folder


@dataclass(frozen=True, kw_only=True)
class VBenchOptions(PipelineOptions):
    """Which videos are meant, and which dimensions: the same for making, scoring and reporting them."""

    method: Methods = None
    dimension: Annotated[
        list[str] | None,
        typer.Option(
            "--dimension",
            help=f"{', '.join(DIMENSIONS)}; may be given again. Default: the paper's eight, without scene for prompts "
            "of one's own.",
        ),
    ] = None
    prompts: Annotated[
        str | None,
        typer.Option(help="standard, for VBench's own, or a file of one's own, one a line; not for bundled."),
    ] = None
    videos: Annotated[
        int | None,
        typer.Option(
            min=1, help="The first so many prompts, of VBench's own for each dimension; default: all, or 64 bundled."
        ),
    ] = None
    samples: Annotated[
        int | None, typer.Option(min=1, help="Videos of each prompt. Default: 5 of VBench's own, else 1.")
    ] = None
    store: Stored = STORE

    def ask(self, operation: str, tell: Tell = silent) -> Asked:
        """What VBench is asked; ``operation`` is for errors."""
        check_offload(operation, self.device, self.offload)
        standard = self.prompts == STANDARD
        dimensions = chosen(operation, tuple(self.dimension or ()), standard=standard)
        study = self._standard(operation, dimensions) if standard else self._own(operation)
        methods = parse_methods(operation, self.method or ())
        return Asked(Store(self.store, study, tell), methods, dimensions)

    def _own(self, operation: str) -> Study:
        """Videos of a bundled pipeline's own prompts, or of a file of them."""
        default = BUNDLED_VIDEOS if self.pipeline in BUNDLED else sys.maxsize
        prompts = None if self.prompts is None else Path(self.prompts)
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(PipelineOptions)}
        videos = default if self.videos is None else self.videos
        return StudyOptions(**shared, videos=videos, prompts=prompts).open(operation, self.samples or 1)

    def _standard(self, operation: str, dimensions: tuple[Dimension, ...]) -> StandardStudy:
        """Videos of VBench's own prompts."""
        prompts = Installed(vbench_python()).prompts
        texts = tuple(prompt.text for prompt in prompts)
        if self.pipeline in BUNDLED:
            base = dataclasses.replace(self, videos=None, prompts=None)._own(operation)
        else:
            preparing = () if self.preparing is None else read_prompts(operation, self.preparing)
            settings = read_settings(operation, self.settings, self.steps)
            base = Study.of(Path(self.pipeline), texts, preparing, settings, self.device)
        kept = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
        changed = {"prompts": texts, "samples": self.samples or SAMPLES}
        return StandardStudy(**{**kept, **changed}, standard=prompts, dimensions=dimensions, first=self.videos)


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
