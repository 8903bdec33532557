"""The tables that ``dvdq-eval table`` and ``layers`` wrote: methods beside one another, the sweep of δ, costs."""

from __future__ import annotations

from dvdq_eval.charts.chart import Charts
from dvdq_eval.charts.quality import swept
from dvdq_eval.layers.results import LayerTable, layer_sheet
from dvdq_eval.paper import PAPER
from dvdq_eval.report.files import Costs, Found
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Part, Section, Text
from dvdq_eval.tables.all import NAMES
from dvdq_eval.tables.cost import cost_sheet
from dvdq_eval.tables.rows import Table
from dvdq_eval.tables.sheets import paper_sheet, table_sheet

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
