"""Every table and figure by name: the videos that it needs, and the files that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from dvdq_eval.charts.chart import Charts, write_svg
from dvdq_eval.charts.quality import swept
from dvdq_eval.progress import Tell
from dvdq_eval.records import write_record, write_text
from dvdq_eval.sheets.markdown import markdown
from dvdq_eval.tables.build import Judge, build_table
from dvdq_eval.tables.catalogue import EXPERIMENTS, Experiment
from dvdq_eval.tables.cost import table_5
from dvdq_eval.tables.figures import SIDE_BY_SIDE, figure_3, figure_4, figure_5
from dvdq_eval.tables.sheets import paper_sheet, table_sheet
from dvdq_eval.videos.method import FULL_PRECISION, Method
from dvdq_eval.videos.store import Store

Maker = Callable[[Store, Path, Tell], None]
"""Writes the files of one table or figure into a folder."""

_OTHERS: Mapping[str, Maker] = MappingProxyType(
    {"table-5": table_5, "figure-3": figure_3, "figure-4": figure_4, "figure-5": figure_5}
)
NAMES = (*(f"table-{n}" for n in range(1, 6)), *(f"figure-{n}" for n in range(3, 7)), "beyond")


def make(
    name: str,
    store: Store,
    out: Path,
    *,
    peers: bool,
    tell: Tell,
    bits: Sequence[str] = (),
    judge: Judge | None = None,
) -> Path:
    """Make one table or figure; what it writes begins with the path that is returned: ``.json``, ``.md``,
    ``.svg``, ``.png``.

    Where the paper prints figures, ``-paper.md`` has them, with what is not the same.
    """
    out.mkdir(parents=True, exist_ok=True)
    if paper := paper_sheet(name):
        write_text(out / f"{name}-paper.md", f"{paper.note}\n\n{markdown(paper)}")
    if name in _OTHERS:
        _OTHERS[name](store, out, tell)
        return out / name
    table = build_table(name, chosen(name, peers=peers, bits=bits), store, tell, judge)
    write_text(out / f"{name}.md", markdown(table_sheet(table)))
    if chart := swept(table.rows):
        write_svg(out / f"{name}.svg", Charts([chart]))
    write_record(out / f"{name}.json", table)
    return out / name


def needed(names: Sequence[str], *, peers: bool, bits: Sequence[str] = ()) -> tuple[Method, ...]:
    """The methods of some tables and figures, each once, in the order in which they first name them."""
    found = [m for name in names if name in EXPERIMENTS for m in chosen(name, peers=peers, bits=bits).methods]
    if "figure-5" in names:
        found += [method for methods in SIDE_BY_SIDE.values() for method in methods]
    return tuple(dict.fromkeys(found))


def chosen(name: str, *, peers: bool, bits: Sequence[str] = ()) -> Experiment:
    """An experiment, with or without other people's packages, with all widths or some beside full precision."""
    experiment = EXPERIMENTS[name]
    wanted = (FULL_PRECISION.bits, *bits)
    lines = tuple(
        line
        for line in experiment.lines
        if (peers or line.method.peer is None) and (not bits or line.method.bits in wanted)
    )
    return Experiment(experiment.title, lines, experiment.claim)
