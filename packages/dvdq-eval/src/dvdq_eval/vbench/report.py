"""A table of VBench's scores, with the paper's in the same columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dvdq_eval.intervals import Interval, interval
from dvdq_eval.paper import PAPER
from dvdq_eval.provenance import provenance
from dvdq_eval.sheets.markdown import markdown
from dvdq_eval.vbench.dimensions import DIMENSIONS, Dimension
from dvdq_eval.vbench.prompts import StandardStudy, jobs_of
from dvdq_eval.vbench.score import Score, scores_of
from dvdq_eval.vbench.study import Asked

_PAPER = PAPER["table-1"]


@dataclass(frozen=True)
class Cell:
    """One method in one dimension.

    Attributes:
        score: VBench's, 0 to 1; null where it is no number or was a path check.
        interval: of the mean over videos; null for fewer than two.
        videos: how many have a value; the others ``failed`` to be made, are ``missing`` because a part was scored, or
            have a value that is ``not_a_number``.
        path_check: whether the judge's weights were random.
        fps, codec: of the files.
        versions: of what judged them.
    """

    score: float | None
    interval: Interval | None
    videos: int
    failed: int
    missing: int
    not_a_number: int
    path_check: bool
    fps: float
    codec: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One method; ``cells`` by dimension, of those that were scored."""

    label: str
    bits: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Report:
    """All rows, with what the videos are of."""

    pipeline: str
    prompts: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Those that some method was scored in."""
        return tuple(d for d in DIMENSIONS.values() if any(d.name in row.cells for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; the paper's figures are ×100, as printed."""
        paper = [dict(zip(_PAPER.columns, row, strict=True)) for row in _PAPER.rows]
        return {**asdict(self), "paper": paper, "provenance": provenance()}


def build_report(asked: Asked, *, only: Iterable[Dimension] = ()) -> Report:
    """What is scored of the methods, in all dimensions or in ``only`` some; scores of other videos are left out."""
    names = {dimension.name for dimension in only} or set(DIMENSIONS)
    rows = []
    for method in asked.methods:
        folder, cells = asked.folder(method), {}
        for name, score in ({} if folder is None else scores_of(folder)).items():
            jobs = {job.name for job in jobs_of(asked.study, DIMENSIONS[name])}
            if name in names and jobs.issuperset((*score.videos, *score.failed)):
                cells[name] = _cell(score, len(jobs))
        rows.append(Row(method.label, method.bits, cells))
    prompts = "VBench's own prompts" if isinstance(asked.study, StandardStudy) else "other prompts than VBench's"
    return Report(asked.study.name, prompts, dict(asked.study.settings), tuple(rows))


def _cell(score: Score, total: int) -> Cell:
    values = [value for value in score.videos.values() if value is not None]
    shown = not score.path_check
    return Cell(
        score=score.score if shown else None,
        interval=interval(values) if shown and len(values) > 1 else None,
        videos=len(values),
        failed=len(score.failed),
        missing=total - len(score.videos) - len(score.failed),
        not_a_number=len(score.videos) - len(values),
        path_check=score.path_check,
        fps=score.fps,
        codec=score.codec,
        versions=score.versions,
    )


def report_markdown(report: Report) -> str:
    """Scores ×100 with the 95 % interval of their mean, the number of videos in brackets, and the paper's below."""
    dimensions = report.dimensions
    ours = [[row.label, row.bits, *(_text(row.cells.get(d.name)) for d in dimensions)] for row in report.rows]
    paper = [
        [f"paper: {row[0]}", row[1], *(row[_PAPER.columns.index(d.column)] if d.column else "–" for d in dimensions)]
        for row in _PAPER.rows
    ]
    lines = [f"VBench × 100 of {report.pipeline} on {report.prompts}.", ""]
    header = ["method", "bits", *(d.heading for d in dimensions)]
    lines.append(markdown(header, [*ours, *(paper if any(d.column for d in dimensions) else [])]))
    if any(cell.path_check for row in report.rows for cell in row.cells.values()):
        lines.append("*path check*: the judge's weights were random; its real code ran and its figure means nothing.")
    lines.append("± is the 95 % bootstrap interval of the mean over videos; in brackets, how many have a value.")
    lines.append("The paper's rows are of HunyuanVideo on VBench's own prompts: no other videos compare with them.")
    return "\n".join(lines) + "\n"


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    counts = {"failed": cell.failed, "missing": cell.missing, "NaN": cell.not_a_number}
    among = ", ".join([str(cell.videos), *(f"{count} {what}" for what, count in counts.items() if count)])
    return f"{_figure(cell)} ({among})"


def _figure(cell: Cell) -> str:
    if cell.path_check:
        return "path check"
    if cell.score is None:
        return "NaN"
    if cell.interval is None:
        return f"{cell.score * 100:.2f}"
    half = max(cell.interval.high - cell.interval.mean, cell.interval.mean - cell.interval.low)
    return f"{cell.score * 100:.2f} ± {half * 100:.2f}"
