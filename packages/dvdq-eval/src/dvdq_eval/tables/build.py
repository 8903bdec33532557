"""A table from videos: each method's mean of each metric with its interval, and whether it differs from its rival's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from dvdq_eval.intervals import Interval, difference, interval
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.tables.catalogue import Experiment
from dvdq_eval.tables.metrics import METRICS
from dvdq_eval.vbench.score import Score
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.method import FULL_PRECISION, Configuration
from dvdq_eval.videos.run import make_videos
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Study

Judge = Callable[[Configuration], Mapping[str, Score]]
"""Gives VBench's scores of a method whose videos are made, by dimension."""


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes:
        label, bits: for people.
        teacache: threshold, if steps were skipped.
        against: title of the method that ``differences`` compare it with.
        metrics: mean and 95 % interval of each metric of :data:`~dvdq_eval.tables.metrics.METRICS` that exists.
        differences: the same of its paired differences from ``against``: this minus that, video by video.
        average_bits: mean activation width over the steps that ran.
        reused: share of passes that TeaCache skipped.
        delta: of the bit switch.
        bits_per_weight: of the linears that are quantized, scales and all counted.
        bytes: of the transformer's checkpoint.
        prepare_seconds: of quantizing the weights; ``calibration_seconds``, of making the videos that a calibrated
            method has to see, come on top.
        key: of the method's folder in the store.
        commits: of the project, that its videos were made at.
    """

    label: str
    bits: str
    teacache: float | None
    against: str | None
    metrics: dict[str, Interval]
    differences: dict[str, Interval]
    average_bits: float | None
    reused: float | None
    delta: float | None
    bits_per_weight: float
    bytes: int
    prepare_seconds: float
    calibration_seconds: float | None
    key: str
    commits: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """All rows, with what they were made from."""

    name: str
    title: str
    claim: str
    pipeline: str
    videos: int
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def build_table(
    name: str, experiment: Experiment, study: Study, store: Store, tell: Tell, judge: Judge | None = None
) -> Table:
    """Make and measure what is missing, and summarise: the table of one experiment over a study's videos.

    ``judge`` asks VBench of each method; what it said with random weights is no metric.
    """
    folders: dict[Configuration, MethodFolder] = {}
    measured: dict[Configuration, Mapping[str, list[float]]] = {}

    def values_of(configuration: Configuration) -> Mapping[str, list[float]]:
        if configuration not in measured:
            folders[configuration] = make_videos(study, store, configuration, tell)
            reference = folders[FULL_PRECISION] if FULL_PRECISION in folders else folders[configuration]
            videos = measure_videos(study, folders[configuration], reference, configuration.title, tell)
            scores = {} if judge is None else judge(configuration)
            measured[configuration] = _columns(_with_scores(study, videos, scores))
        return measured[configuration]

    values_of(FULL_PRECISION)
    rows = []
    for line in experiment.lines:
        columns = values_of(line.configuration)
        rival = {} if line.against is None else values_of(line.against)
        rows.append(_row(line.configuration, line.against, folders[line.configuration], study, columns, rival))
    return Table(
        name,
        experiment.title,
        experiment.claim,
        study.name,
        len(study.jobs),
        dict(study.settings),
        tuple(rows),
        provenance(),
    )


def _with_scores(
    study: Study, videos: Sequence[Mapping[str, Any]], scores: Mapping[str, Score]
) -> list[dict[str, Any]]:
    real = {name: score.videos for name, score in scores.items() if not score.path_check}
    return [
        {**video, **{name: values.get(job.name) for name, values in real.items()}}
        for video, job in zip(videos, study.jobs, strict=True)
    ]


def _columns(videos: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The values of each metric that every video has."""
    there = [name for name in METRICS if all(video.get(name) is not None for video in videos)]
    return {name: [float(video[name]) for video in videos] for name in there}


def _row(
    configuration: Configuration,
    against: Configuration | None,
    folder: MethodFolder,
    study: Study,
    columns: Mapping[str, list[float]],
    rival: Mapping[str, list[float]],
) -> Row:
    records, about = [folder.record(job) for job in study.jobs], folder.about
    assert about is not None
    recipe = about["configuration"]["recipe"]
    return Row(
        label=configuration.label,
        bits=configuration.bits,
        teacache=configuration.teacache,
        against=None if against is None else against.title,
        metrics={name: interval(values) for name, values in columns.items()},
        differences={name: difference(values, rival[name]) for name, values in columns.items() if name in rival},
        average_bits=_mean(records, "average_bits"),
        reused=_mean(records, "reused"),
        delta=None if recipe is None else recipe["schedule"]["delta"],
        bits_per_weight=about["bits_per_weight"],
        bytes=about["bytes"],
        prepare_seconds=about["prepare_seconds"],
        calibration_seconds=about["calibration_seconds"],
        key=folder.folder.name,
        commits=tuple(sorted({str(record["commit"]) for record in records})),
    )


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return fmean(record[name] for record in records) if all(name in record for record in records) else None
