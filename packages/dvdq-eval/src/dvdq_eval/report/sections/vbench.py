"""VBench's scores, dimension by dimension."""

from __future__ import annotations

from collections.abc import Sequence

from dvdq_eval.intervals import interval
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Cell, Column, Part, Section, Sheet, Text
from dvdq_eval.vbench.dimensions import DIMENSIONS
from dvdq_eval.vbench.score import Score

PATH_CHECK = (
    "A path check ran VBench’s code with random weights in its judge’s place. It shows that the path works and says "
    "nothing of the videos, so its number is not shown."
)


def vbench(material: Material) -> Section | None:
    """Scores × 100 by method and dimension."""
    study = material.study
    methods = [] if study is None else [method for method in study.methods if method.scores]
    if study is None or not methods:
        return None
    scores = [score for method in methods for score in method.scores]
    dimensions = [name for name in DIMENSIONS if any(score.dimension == name for score in scores)]
    columns = [
        Column("Method", first="ascending"),
        *(Column(dimension.replace("_", " ").capitalize()) for dimension in dimensions),
    ]
    rows = []
    for place, method in enumerate(methods):
        by_dimension = {score.dimension: score for score in method.scores}
        cells = [_cell(by_dimension.get(dimension)) for dimension in dimensions]
        rows.append([Cell(method.about.title, place), *cells])
    parts: list[Part] = [
        Text(
            "VBench’s own aggregate of each dimension × 100; below it the 95 % interval of its videos’ values, and how "
            "many videos have one."
        ),
        Sheet("VBench × 100", columns, rows),
    ]
    if any(score.path_check for score in scores):
        parts.append(Text(PATH_CHECK, "note"))
    parts.append(Text(_judged(scores), "note"))
    return Section("vbench", "VBench", parts, study.sources)


def _cell(score: Score | None) -> Cell:
    if score is None or score.path_check:
        return Cell("–" if score is None else "path check")
    if score.score is None:
        return Cell("not a number", css="miss")
    values = [value for value in score.videos.values() if value is not None]
    around = interval(values) if len(values) > 1 else None
    spread = [] if around is None else [f"{100 * around.low:.2f}–{100 * around.high:.2f}"]
    total = len(score.videos) + len(score.failed)
    count = f"{len(values)} of {total}" if len(values) < total else str(total)
    css = "miss" if len(values) < total else ""
    return Cell(f"{100 * score.score:.2f}", score.score, ", ".join([*spread, f"{count} videos"]), css=css)


def _judged(scores: Sequence[Score]) -> str:
    """Versions of the judges and the files that they saw."""
    versions = {", ".join(f"{name} {version}" for name, version in score.versions.items()) for score in scores}
    files = {f"{score.codec} at {score.fps:g} frames a second" for score in scores}
    return f"Scored by {'; '.join(sorted(versions))}, from {'; '.join(sorted(files))}."
