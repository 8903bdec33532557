"""The videos that VBench is asked about, whether they are there, and how they are handed over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from dvdq_eval.methods import Method
from dvdq_eval.vbench.dimensions import Dimension, jobs_of
from dvdq_eval.videos.prepare import prepared_files, tuned
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Job, Study
from dvdq_reference.spec.errors import DvdqError

OPERATION = "vbench score"
CODEC = "ffv1"
"""What videos are handed over in."""


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


def stage(video: Path, staged: Path, fps: float) -> None:
    """Copy the FFV1 stream of ``video`` into the mp4 ``staged``, ``fps`` frames a second.

    VBench reads frames with decord and with OpenCV, both of which know FFV1 in mp4 and give back the very bytes: a
    judge sees what the model made and no codec's errors, and no time goes into encoding. H.264 would add the same blur
    to every method, of the size of what is to be told apart.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(video)) as source, av.open(str(staged), "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        copy.time_base = 1 / rate
        packets = (packet for packet in source.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            packet.stream = copy
            packet.time_base = 1 / rate
            packet.pts = packet.dts = number
            packet.duration = 1
            target.mux(packet)


def smaller_side(video: Path) -> int:
    """Of its frames, in pixels."""
    with av.open(str(video)) as source:
        context = source.streams.video[0].codec_context
        return min(context.width, context.height)
