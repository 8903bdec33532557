"""The tables that ``dvdq-eval table`` wrote: methods held against one another, the sweep of δ, costs."""

from __future__ import annotations

from dvdq_eval.charts.quality import Point, sweep
from dvdq_eval.paper import DIFFERS, PAPER
from dvdq_eval.report.files import Costs, Found
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Cell, Chart, Charts, Column, Part, Section, Sheet, Text
from dvdq_eval.tables._page_sheet import plain, table_sheet, title
from dvdq_eval.tables.all import NAMES
from dvdq_eval.tables.metrics import METRICS
from dvdq_eval.tables.rows import Row, Table

MARKS = (
    "▲ and ▼ mark what is better and worse than the row that it is held against by more than chance: the 95 % interval "
    "of the differences, video by video, does not contain 0."
)


def tables(material: Material) -> list[Section]:
    """A section a file, in the order in which the command knows them."""
    sections = [_table(file) for file in material.of(Table)] + [_costs(file) for file in material.of(Costs)]
    places = {name: place for place, name in enumerate(NAMES)}
    return sorted(sections, key=lambda section: places.get(section.key, -1))


def _table(file: Found[Table]) -> Section:
    table = file.value
    parts: list[Part] = [Text(f"The paper: {table.claim}" if table.name in PAPER else table.claim)]
    if chart := _sweep(table.rows):
        parts.append(Charts([chart]))
    parts.append(
        table_sheet(f"{table.title}, {table.videos} videos of each method", table.rows, _preparing(table.rows))
    )
    if any(row.against for row in table.rows):
        parts.append(Text(MARKS, "note"))
    return Section(table.name, _heading(table), [*parts, *_paper(table.name)], [file.source])


def _heading(table: Table) -> str:
    kind, _, number = table.name.partition("-")
    return f"{kind.capitalize()} {number}: {table.title}" if number else table.title


def _preparing(rows: tuple[Row, ...]) -> list[tuple[Column, list[Cell]]]:
    """What each row is held against, and how long its weights and its calibration took."""
    columns = []
    if any(row.against for row in rows):
        against = [Cell(row.against or "–", row.against) for row in rows]
        columns.append(
            (Column("Held against", "the method that its videos are compared with", "ascending", words=True), against)
        )
    column = Column("Preparing, s", "quantizing the weights", "ascending")
    columns.append((column, [plain(row.prepare_seconds, ".1f") for row in rows]))
    if any(row.calibration_seconds is not None for row in rows):
        column = Column("Calibrating, s", "making the videos that a calibrated method has to see", "ascending")
        columns.append((column, [plain(row.calibration_seconds, ".1f") for row in rows]))
    return columns


def _sweep(rows: tuple[Row, ...]) -> Chart | None:
    """Quality along δ, if this is a sweep of it: rows that differ in nothing else are called by it."""
    name = next((name for name in METRICS if all(name in row.metrics for row in rows)), None)
    swept = [row for row in rows if row.delta is not None and row.label == f"δ = {row.delta:g}"]
    if name is None or len(swept) < 2:
        return None
    points, ends = (
        [
            Point(title(row), row.delta or 0.0, row.metrics[name], "ours", f"{row.average_bits:.2f} bits")
            for row in chosen
        ]
        for chosen in (swept, [row for row in rows if row.delta is None])
    )
    return Chart(sweep(points, "δ", METRICS[name].heading, ends), f"{METRICS[name].heading} along δ")


def _costs(file: Found[Costs]) -> Section:
    columns = [
        Column("Method", first="ascending"),
        Column("Activation bits", "mean over the steps that ran", "ascending"),
        Column("MB", "of the transformer's checkpoint", "ascending"),
        Column("Smaller", "than in 16 bits"),
        Column("Seconds a video", "without decoding; median, and the range below it", "ascending"),
        Column("Times as fast", "as full precision in the same run"),
    ]
    rows = [
        [
            Cell(cost.label, place),
            plain(cost.activation_bits, ".2f"),
            plain(cost.bytes, ".2f", 1e-6),
            Cell(f"{cost.memory:.2f}×", cost.memory),
            Cell(f"{cost.seconds:.2f}", cost.seconds, f"{cost.fastest:.2f}–{cost.slowest:.2f}"),
            Cell(f"{cost.latency:.2f}×", cost.latency),
        ]
        for place, cost in enumerate(file.value.rows)
    ]
    text = "Videos are timed in turns, so that every method sees the same machine."
    sheet = Sheet(f"Size and time, {file.value.rows[0].rounds} videos of each method", columns, rows)
    parts = [Text(text), sheet, *_paper("table-5")]
    return Section("table-5", "Table 5: Size and time", parts, [file.source])


def _paper(name: str) -> list[Part]:
    """The paper's own figures, if it prints any, with what they cannot be held against."""
    if name not in PAPER:
        return []
    paper = PAPER[name]
    columns = [Column(heading.capitalize() or "Metric") for heading in paper.columns]
    rows = [[Cell(text, text) for text in row] for row in paper.rows]
    return [Sheet("The paper’s own figures", columns, rows, folded=True, note=DIFFERS)]
