"""``vbench-<dimension>.json`` in a method's folder: what VBench says of its videos."""

from __future__ import annotations

from dataclasses import dataclass

from dvdq_eval.records import find_record, write_record
from dvdq_eval.vbench.dimensions import DIMENSIONS
from dvdq_eval.videos.store import MethodFolder


@dataclass(frozen=True)
class Score:
    """One dimension over the videos of one method, as VBench's own code gave it: those that were scored last.

    Attributes:
        dimension: e.g. ``imaging_quality``.
        score: VBench's aggregate, 0 to 1, over the videos that there are; null if it is not a number.
        videos: by the name of the job, VBench's value of each video on the aggregate's scale; null where it is not a
            number.
        failed: names of the jobs whose generation failed: they have no value, and the report counts them.
        path_check: whether the judge's weights were random: then the score shows that the code runs, and no more.
        fps: of the files that were scored, and ``codec``, what they were written in.
        inputs: a hash of all that decides the score: files, prompts, frame rate, the dimension's weights, device and
            versions; another one is scored anew.
        seconds: that it took.
        versions: of VBench, torch, torchvision and Python in its environment, and the ``device`` that it ran on.
    """

    dimension: str
    score: float | None
    videos: dict[str, float | None]
    failed: tuple[str, ...]
    path_check: bool
    fps: float
    codec: str
    inputs: str
    seconds: float
    versions: dict[str, str]


def scores_of(folder: MethodFolder) -> dict[str, Score]:
    """The scores that a method has, by dimension, in the order of :data:`DIMENSIONS`."""
    read = {name: find_record(folder.folder / f"vbench-{name}.json", Score) for name in DIMENSIONS}
    return {name: score for name, score in read.items() if score is not None}


def keep_score(folder: MethodFolder, score: Score) -> None:
    """Write a score, in place of an earlier one of its dimension."""
    write_record(folder.folder / f"vbench-{score.dimension}.json", score)
