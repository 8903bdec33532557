"""A method of a study in figures: the row of a table, made from what lies in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from dvdq_eval.intervals import interval
from dvdq_eval.progress import Tell
from dvdq_eval.report.studies import FoundMethod, FoundStudy
from dvdq_eval.tables.build import Row
from dvdq_eval.tables.metrics import METRICS


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
    methods, what = study.methods, f"Intervals of {study.about['name']}"
    summaries = []
    for done, method in enumerate(methods):
        tell(what, done, len(methods))
        summaries.append(_summary(method))
    tell(what, len(methods), len(methods))
    return summaries


def _summary(method: FoundMethod) -> Summary:
    about, schedule = method.about, method.schedule
    records = [video.record for video in method.videos.values()]
    measured = [video.quality for video in method.videos.values() if video.quality is not None]
    seconds = [record["seconds"] for record in records if record["seconds"] is not None]
    row = Row(
        label=about["label"],
        bits=about["bits"],
        teacache=about["configuration"]["teacache"],
        against=None,
        metrics={name: interval(values) for name in METRICS if len(values := _column(measured, name)) > 1},
        differences={},
        average_bits=_mean(records, "average_bits"),
        reused=_mean(records, "reused"),
        delta=None if schedule is None else schedule["delta"],
        bits_per_weight=about["bits_per_weight"],
        bytes=about["bytes"],
        prepare_seconds=about["prepare_seconds"],
        calibration_seconds=about["calibration_seconds"],
        key=method.key,
        commits=tuple(sorted({str(record["commit"]) for record in records})),
    )
    middle = median(seconds) if seconds else None
    return Summary(row, len(records), len(measured), len(method.failures), middle, about["bytes_before"])


def _column(measured: list[dict[str, Any]], name: str) -> list[float]:
    """One metric of every video; empty if one lacks it."""
    values = [video.get(name) for video in measured]
    return [] if None in values else [float(value) for value in values if value is not None]


def _mean(records: list[dict[str, Any]], name: str) -> float | None:
    return fmean(record[name] for record in records) if records and all(name in record for record in records) else None
