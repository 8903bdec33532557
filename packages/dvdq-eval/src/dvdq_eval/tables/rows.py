"""A method in figures: what is measured of each video and how it is written, its row of a table, all that it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean, median
from types import MappingProxyType
from typing import Any, Literal

from dvdq_eval.intervals import Interval, difference, interval, is_apart
from dvdq_eval.methods import title_of
from dvdq_eval.vbench.dimensions import DIMENSIONS
from dvdq_eval.videos.records import MethodRecord, VideoRecord
from dvdq_eval.videos.store import StoredVideo


@dataclass(frozen=True)
class Metric:
    """How a metric is written.

    Attributes:
        heading: of its column.
        meaning: in a line.
        form: of its figure, in ``unit``: 100 for per cent.
        more_is_better: None where neither is: a video that stands still flickers least.
    """

    heading: str
    meaning: str
    form: str
    unit: float = 1.0
    more_is_better: bool | None = True

    def verdict(self, difference: Interval | None) -> Literal["", "better", "worse"]:
        """What a paired difference says of a method: nothing where there is none, or where its interval has 0 in it."""
        if self.more_is_better is None or difference is None or not is_apart(difference):
            return ""
        return "better" if (difference.mean > 0) == self.more_is_better else "worse"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "psnr_db": Metric("PSNR (dB)", "peak signal-to-noise ratio against full precision", ".1f"),
        "ssim": Metric("SSIM", "structural similarity with full precision", ".3f"),
        "ms_ssim": Metric("MS-SSIM", "structural similarity over several scales", ".3f"),
        "vmaf": Metric("VMAF", "Netflix's fusion of metrics, against full precision", ".1f"),
        "latent_error": Metric("latent error", "‖a − b‖ / ‖b‖ of the final latents", ".3f", more_is_better=False),
        "adherence": Metric("words seen (%)", "of the prompt's words, those that a detector sees", ".1f", 100.0),
        "flickering": Metric(
            "steadiness (%)", "VBench's temporal flickering; no reference", ".2f", 100.0, more_is_better=None
        ),
        **{
            name: Metric(
                f"{dimension.column or 'flickering'} (VBench)",
                f"VBench's {name.replace('_', ' ')}",
                ".2f",
                100.0,
                more_is_better=True if dimension.column else None,
            )
            for name, dimension in DIMENSIONS.items()
        },
    }
)
"""In the order of a table's columns; VBench's dimensions are there where its judges were asked."""


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes:
        label, bits: for people.
        teacache: threshold, if steps were skipped.
        against: title of the method that ``differences`` compare it with.
        metrics: mean and 95 % interval of each metric of :data:`~dvdq_eval.tables.rows.METRICS` that exists.
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

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        return title_of(self.label, self.bits, self.teacache)


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


@dataclass(frozen=True)
class Measured:
    """What a store has of a method.

    Attributes:
        key: of its folder.
        about: its record.
        videos: those that were made; of a metric, the ones that were measured count.
        scores: by VBench's dimension, its value of each video by name.
    """

    key: str
    about: MethodRecord
    videos: Sequence[StoredVideo]
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def columns(self) -> dict[str, list[float]]:
        """The values of each metric that every measured video has."""
        measured = [video for video in self.videos if video.quality is not None]
        found: dict[str, list[float]] = {}
        for name in METRICS:
            values = [self._value(video, name) for video in measured]
            known = [float(value) for value in values if value is not None]
            if known and len(known) == len(values):
                found[name] = known
        return found

    def _value(self, video: StoredVideo, name: str) -> float | None:
        if name in self.scores:
            return self.scores[name].get(video.name)
        return getattr(video.quality, name, None)


def row_of(measured: Measured, against: Measured | None = None) -> Row:
    """Means over the videos with their intervals, which take two, and the paired differences from another method."""
    about, records = measured.about, [video.record for video in measured.videos]
    columns = {name: values for name, values in measured.columns().items() if len(values) > 1}
    rival = {} if against is None else against.columns()
    return Row(
        label=about.label,
        bits=about.bits,
        teacache=about.teacache,
        against=None if against is None else against.about.title,
        metrics={name: interval(values) for name, values in columns.items()},
        differences={name: difference(values, rival[name]) for name, values in columns.items() if name in rival},
        average_bits=_mean(record.average_bits for record in records),
        reused=_mean(record.reused for record in records),
        delta=None if about.schedule is None else about.schedule["delta"],
        bits_per_weight=about.bits_per_weight,
        bytes=about.bytes,
        prepare_seconds=about.prepare_seconds,
        calibration_seconds=about.calibration_seconds,
        key=measured.key,
        commits=_commits(records),
    )


@dataclass(frozen=True)
class Summary:
    """A method's row, and what else its videos say.

    Attributes:
        row: means over the videos that were measured; a metric needs two of them, and a value of each.
        means: of each metric that every measured video has, however many there are.
        words: for each word of the prompts that a detector looks for, the share of videos that show it.
        videos, measured, failed: how many were made, how many of those were measured, how many could not be made.
        seconds: median wall time of a video; ``pass_seconds``, of the transformer's passes alone, if they were timed.
        bytes_before: of the transformer's checkpoint in full precision.
    """

    row: Row
    means: dict[str, float]
    words: dict[str, float]
    videos: int
    measured: int
    failed: int
    seconds: float | None
    pass_seconds: float | None
    bytes_before: int

    @property
    def smaller(self) -> float:
        """Full precision's bytes over this method's."""
        return self.bytes_before / self.row.bytes

    def times_as_fast(self, other: Summary) -> float:
        """The seconds of the passes of another method's video over those of this one's; both were timed."""
        assert self.pass_seconds is not None
        assert other.pass_seconds is not None
        return other.pass_seconds / self.pass_seconds


def summary_of(measured: Measured, failed: int = 0) -> Summary:
    """All of a method in figures."""
    records = [video.record for video in measured.videos]
    qualities = [video.quality for video in measured.videos if video.quality is not None]
    seen = [quality.words for quality in qualities if quality.words is not None]
    return Summary(
        row=row_of(measured),
        means={name: fmean(values) for name, values in measured.columns().items()},
        words={word: fmean(words[word] for words in seen if word in words) for word in dict.fromkeys(chain(*seen))},
        videos=len(records),
        measured=len(qualities),
        failed=failed,
        seconds=_median(record.seconds for record in records),
        pass_seconds=_median(record.pass_seconds for record in records),
        bytes_before=measured.about.bytes_before,
    )


def _median(values: Iterable[float | None]) -> float | None:
    """Of those that there are."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    """None unless every video has one."""
    all_of_them = list(values)
    known = [value for value in all_of_them if value is not None]
    return fmean(known) if known and len(known) == len(all_of_them) else None


def _commits(records: Sequence[VideoRecord]) -> tuple[str, ...]:
    return tuple(sorted({str(record.commit) for record in records}))
