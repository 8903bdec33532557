"""A method of a study in figures: its row, and how its videos were made."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from dvdq_eval.progress import Tell
from dvdq_eval.report.studies import FoundMethod, FoundStudy
from dvdq_eval.tables.rows import Row, row_of


@dataclass(frozen=True)
class Summary:
    """A method's row, and how it was made.

    Attributes:
        row: means over the videos that were measured; a metric needs two of them, and a value of each.
        videos, measured, failed: how many were made, how many of those were measured, how many could not be made.
        seconds: median wall time of a video.
        bytes_before: of the transformer's checkpoint in full precision.
    """

    row: Row
    videos: int
    measured: int
    failed: int
    seconds: float | None
    bytes_before: int


def summarise(study: FoundStudy, tell: Tell) -> list[Summary]:
    """Every method of a study."""
    methods, what = study.methods, f"Intervals of {study.about.name}"
    summaries = []
    for done, method in enumerate(methods):
        tell(what, done, len(methods))
        summaries.append(_summary(method))
    tell(what, len(methods), len(methods))
    return summaries


def _summary(method: FoundMethod) -> Summary:
    videos = method.videos.values()
    seconds = [video.record.seconds for video in videos if video.record.seconds is not None]
    measured = sum(video.quality is not None for video in videos)
    middle = median(seconds) if seconds else None
    return Summary(
        row_of(method.measured), len(videos), measured, len(method.failures), middle, method.about.bytes_before
    )
