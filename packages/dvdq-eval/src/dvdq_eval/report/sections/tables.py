"""The tables that ``dvdq-eval table`` and ``layers`` wrote, and VBench's scores."""

from __future__ import annotations

from collections.abc import Sequence

from dvdq_eval.charts.plot import Charts
from dvdq_eval.charts.quality import swept
from dvdq_eval.layers.results import LayerTable, layer_sheet
from dvdq_eval.methods import title_of
from dvdq_eval.paper import PAPER
from dvdq_eval.report.material import Costs, Found, Material
from dvdq_eval.report.parts import Part, Section, Text
from dvdq_eval.tables.build import NAMES
from dvdq_eval.tables.cost import cost_sheet
from dvdq_eval.tables.rows import Table
from dvdq_eval.tables.sheets import paper_sheet, table_sheet
from dvdq_eval.vbench.report import Report, Row, judged, vbench_sheet
from dvdq_eval.vbench.scoring import Score

MARKS = (
    "▲ and ▼ mark what is better and worse than the row that it is held against by more than chance: the 95 % interval "
    "of the differences, video by video, does not contain 0."
)


def tables(material: Material) -> list[Section]:
    """A section a file, in the order in which the command knows them."""
    sections = [_table(file) for file in material.of(Table)] + [_costs(file) for file in material.of(Costs)]
    sections += [_layers(file) for file in material.of(LayerTable)]
    places = {name: place for place, name in enumerate(NAMES)}
    return sorted(sections, key=lambda section: places.get(section.key, -1))


def _table(file: Found[Table]) -> Section:
    table = file.value
    parts: list[Part] = [Text(f"The paper: {table.claim}" if table.name in PAPER else table.claim)]
    if chart := swept(table.rows):
        parts.append(Charts([chart]))
    parts.append(table_sheet(table))
    if any(row.against for row in table.rows):
        parts.append(Text(MARKS, "note"))
    return Section(table.name, _heading(table), [*parts, *_paper(table.name)], [file.source])


def _heading(table: Table) -> str:
    kind, _, number = table.name.partition("-")
    return f"{kind.capitalize()} {number}: {table.title}" if number else table.title


def _costs(file: Found[Costs]) -> Section:
    text = "Videos are timed in turns, so that every method sees the same machine."
    parts = [Text(text), cost_sheet(file.value.rows), *_paper("table-5")]
    return Section("table-5", "Table 5: Size and time", parts, [file.source])


def _layers(file: Found[LayerTable]) -> Section:
    value = file.value
    text = (
        f"The output of random layers of full size under each recipe, against the same in full precision: "
        f"{value.tokens} tokens of each kind of activations, {len(value.seeds)} times. Nothing here was trained."
    )
    return Section("layers", "Layers of full size", [Text(text), layer_sheet(value)], [file.source])


def _paper(name: str) -> list[Part]:
    sheet = paper_sheet(name)
    return [] if sheet is None else [sheet]


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
