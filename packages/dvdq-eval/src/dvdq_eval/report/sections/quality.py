"""Quality of every method of a study, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from dvdq_eval.charts.plot import Chart, Charts
from dvdq_eval.charts.quality import LEGEND, Point, tradeoff
from dvdq_eval.report.material import FoundStudy, Material
from dvdq_eval.report.parts import Part, Section, Text
from dvdq_eval.sheets import Cell, Column, Sheet, figure
from dvdq_eval.tables.catalogue import OURS
from dvdq_eval.tables.rows import METRICS, Row, Summary
from dvdq_eval.tables.sheets import Columns, css_of, methods_sheet

NOTE = (
    "Each figure is the mean over a method’s videos with its 95 % bootstrap interval below it. Distances are from full "
    "precision of the same prompt and noise, frames in 8 bits before any lossy codec. Steadiness needs no reference: a "
    "video that stands still is the steadiest. MB is the transformer’s checkpoint, what is not quantized in 16 bits."
)
SECONDS = (
    "Seconds are the median wall time of a video while the store was filled, with whatever else ran on that machine: "
    "read them beside measured latencies, where there are any."
)


def quality(material: Material, summaries: Sequence[Summary]) -> Section | None:
    """The sheet of all methods, the charts of quality against bytes and seconds, and the generations that failed."""
    study = material.study
    if study is None or not (summaries or study.failures):
        return None
    parts: list[Part] = [Text(f"{_counted(study, summaries)} Any column sorts.")]
    if summaries:
        rows = [summary.row for summary in summaries]
        parts += [methods_sheet("Every method of the study", rows, _making(summaries)), Text(NOTE, "note")]
    charts = _tradeoffs(study, summaries)
    if charts:
        parts += [Charts(charts, LEGEND), Text(SECONDS, "note")]
    if study.failures:
        parts.append(_failures(study))
    return Section("quality", "Quality", parts, study.sources)


def _counted(study: FoundStudy, summaries: Sequence[Summary]) -> str:
    made, failed = sum(summary.videos for summary in summaries), len(study.failures)
    unmeasured = made - sum(summary.measured for summary in summaries)
    words = (
        f"{len(summaries)} methods, {made} videos of {len(study.jobs)} prompts and seeds. Failed generations: {failed}."
    )
    if unmeasured:
        words += f" {unmeasured} videos were made but not measured."
    if len({summary.measured for summary in summaries}) > 1:
        words += " Methods with fewer videos are means over fewer prompts: compare those with care."
    return words


def _making(summaries: Sequence[Summary]) -> Columns:
    videos = [Cell(str(summary.measured), summary.measured) for summary in summaries]
    failed = [Cell(str(summary.failed), summary.failed, css="miss" if summary.failed else "") for summary in summaries]
    seconds = [figure(summary.seconds, ".2f") for summary in summaries]
    return [
        (Column("videos", "that were measured"), videos),
        (Column("failed", "generations that ended in an error"), failed),
        (Column("seconds", "median of a video, as it was made", "ascending"), seconds),
    ]


def _tradeoffs(study: FoundStudy, summaries: Sequence[Summary]) -> list[Chart]:
    """The first metric that any method has, against MB and against seconds."""
    name = next((name for name in METRICS if any(name in summary.row.metrics for summary in summaries)), None)
    if name is None:
        return []
    metric = METRICS[name]
    exact_keys = {method.key for method in study.methods if method.about.exact}
    exact = next((summary for summary in summaries if summary.row.key in exact_keys), None)
    charts = []
    for label, cost in (("MB", _megabytes), ("seconds a video", _seconds)):
        points = [
            Point(s.row.title, x, s.row.metrics[name], css_of(s.row.label), _label(s.row))
            for s in summaries
            if s is not exact and name in s.row.metrics and (x := cost(s)) is not None
        ]
        if points:
            at = None if exact is None else cost(exact)
            charts.append(Chart(tradeoff(points, label, metric.heading, at), f"{metric.heading} against {label}"))
    return charts


def _label(row: Row) -> str:
    """The width of what the project is about; the others are named when pointed at."""
    return row.bits if row.label == OURS and row.teacache is None else ""


def _megabytes(summary: Summary) -> float | None:
    return summary.row.bytes / 1e6


def _seconds(summary: Summary) -> float | None:
    return summary.seconds


def _failures(study: FoundStudy) -> Sheet:
    columns = [
        Column("method", first="ascending"),
        Column("prompt", first="ascending", words=True),
        Column("seed", first="ascending"),
        Column("error", first="ascending", words=True),
    ]
    rows = [
        [Cell(title, title), Cell(f.prompt, f.prompt), Cell(str(f.seed), f.seed), Cell(f.error, f.error)]
        for title, f in study.failures
    ]
    return Sheet("Generations that failed", columns, rows)
