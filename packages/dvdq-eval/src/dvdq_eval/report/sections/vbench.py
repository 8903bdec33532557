"""VBench's scores, dimension by dimension."""

from __future__ import annotations

from collections.abc import Sequence

from dvdq_eval.methods import title_of
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Part, Section, Text
from dvdq_eval.vbench.report import Report, Row, judged, vbench_sheet
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
    rows = [
        Row(
            title_of(method.about.label, "", method.about.teacache),
            method.about.bits,
            {score.dimension: judged(score, _total(score)) for score in method.scores},
        )
        for method in methods
    ]
    report = Report(study.about.name, "", study.about.settings, tuple(rows))
    parts: list[Part] = [
        Text(
            "VBench’s own aggregate of each dimension × 100; below it the 95 % interval of its videos’ values, and how "
            "many videos have one."
        ),
        vbench_sheet(report),
    ]
    if any(score.path_check for score in scores):
        parts.append(Text(PATH_CHECK, "note"))
    parts.append(Text(_judged(scores), "note"))
    return Section("vbench", "VBench", parts, study.sources)


def _total(score: Score) -> int:
    """Videos that it is of; how many were asked for, a store does not know."""
    return len(score.videos) + len(score.failed)


def _judged(scores: Sequence[Score]) -> str:
    """Versions of the judges and the files that they saw."""
    versions = {", ".join(f"{name} {version}" for name, version in score.versions.items()) for score in scores}
    files = {f"{score.codec} at {score.fps:g} frames a second" for score in scores}
    return f"Scored by {'; '.join(sorted(versions))}, from {'; '.join(sorted(files))}."
