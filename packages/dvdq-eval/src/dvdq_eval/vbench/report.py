"""A table of VBench's scores, with the paper's in the same columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dvdq_eval.intervals import Interval, interval
from dvdq_eval.machine import provenance
from dvdq_eval.paper import PAPER
from dvdq_eval.sheets import NOTHING, Cell, Column, Sheet, markdown, names, with_interval
from dvdq_eval.vbench.dimensions import DIMENSIONS, Dimension, StandardStudy, jobs_of
from dvdq_eval.vbench.scoring import Score, scores_of
from dvdq_eval.vbench.study import Asked

_PAPER = PAPER["table-1"]


@dataclass(frozen=True)
class Judged:
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
    cells: dict[str, Judged]


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
                cells[name] = judged(score, len(jobs))
        rows.append(Row(method.label, method.bits, cells))
    prompts = "VBench's own prompts" if isinstance(asked.study, StandardStudy) else "other prompts than VBench's"
    return Report(asked.study.name, prompts, dict(asked.study.settings), tuple(rows))


def judged(score: Score, total: int) -> Judged:
    """What a score says of ``total`` videos; a path check's says nothing."""
    values = [value for value in score.videos.values() if value is not None]
    shown = not score.path_check
    return Judged(
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
    sheet = vbench_sheet(report)
    if any(d.column for d in report.dimensions):
        sheet = dataclasses.replace(sheet, rows=[*sheet.rows, *_paper_rows(report.dimensions)])
    lines = [f"VBench × 100 of {report.pipeline} on {report.prompts}.", "", markdown(sheet)]
    if any(cell.path_check for row in report.rows for cell in row.cells.values()):
        lines.append("*path check*: the judge's weights were random; its real code ran and its figure means nothing.")
    lines.append("± is the 95 % bootstrap interval of the mean over videos; in brackets, how many have a value.")
    lines.append("The paper's rows are of HunyuanVideo on VBench's own prompts: no other videos compare with them.")
    return "\n".join(lines) + "\n"


def vbench_sheet(report: Report) -> Sheet:
    """A row a method, a column a dimension that some method was scored in."""
    columns = [
        Column("method", first="ascending"),
        Column("bits", "of weights and activations", "ascending"),
        *(Column(d.heading, f"VBench's {d.name.replace('_', ' ')}") for d in report.dimensions),
    ]
    rows = [
        [name, Cell(row.bits, row.bits), *(_cell_of(row.cells.get(d.name)) for d in report.dimensions)]
        for name, row in zip(names([row.label for row in report.rows]), report.rows, strict=True)
    ]
    return Sheet("VBench × 100", columns, rows)


def _paper_rows(dimensions: Sequence[Dimension]) -> Iterator[list[Cell]]:
    for row in _PAPER.rows:
        figures = (row[_PAPER.columns.index(d.column)] if d.column else "–" for d in dimensions)
        yield [Cell(f"paper: {row[0]}"), Cell(row[1]), *map(Cell, figures)]


def _cell_of(found: Judged | None) -> Cell:
    if found is None:
        return NOTHING
    counts = {"failed": found.failed, "missing": found.missing, "NaN": found.not_a_number}
    among = ", ".join([str(found.videos), *(f"{count} {what}" for what, count in counts.items() if count)])
    css = "miss" if any(counts.values()) else ""
    if found.path_check or found.score is None:
        return Cell("path check" if found.path_check else "NaN", note=among, css=css)
    # The interval is of the mean over videos, beside VBench's own aggregate.
    around = None if found.interval is None else with_interval(found.interval, ".2f", 100.0)
    margin, ends = ("", "") if around is None else (around.margin, around.span)
    return Cell(f"{found.score * 100:.2f}", found.score, margin=margin, span=ends, note=among, css=css)
