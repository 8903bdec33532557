"""Every table and figure by name: the videos that it needs, which are made and measured, and the files it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from dvdq_eval.charts.plot import Charts, write_svg
from dvdq_eval.charts.quality import swept
from dvdq_eval.machine import provenance
from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.progress import Tell
from dvdq_eval.records import write_result, write_text
from dvdq_eval.sheets import markdown
from dvdq_eval.tables.catalogue import EXPERIMENTS, Experiment, Line
from dvdq_eval.tables.cost import table_5
from dvdq_eval.tables.figures import SIDE_BY_SIDE, figure_3, figure_4, figure_5
from dvdq_eval.tables.rows import Measured, Table, row_of
from dvdq_eval.tables.sheets import paper_sheet, table_sheet
from dvdq_eval.vbench.dimensions import chosen
from dvdq_eval.vbench.installed import Installed, vbench_python
from dvdq_eval.vbench.scoring import Judges, Score, score_all, scores_of
from dvdq_eval.vbench.study import Asked, check_videos
from dvdq_eval.vbench.weights import check_weights, is_path_check, weights_folder
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.prepare import tuned
from dvdq_eval.videos.store import Store
from dvdq_reference.spec.errors import DvdqError

OPERATION = "table"

Judge = Callable[[Method], Mapping[str, Score]]
"""Gives VBench's scores of a method whose videos are made, by dimension."""


def build_table(name: str, experiment: Experiment, store: Store, tell: Tell, judge: Judge | None = None) -> Table:
    """Make and measure what is missing, and summarise.

    A row bears the experiment's name of its method, whatever another table called the same method when its videos were
    made. ``judge`` asks VBench of each method; what it said with random weights is no metric.
    """
    methods = experiment.methods
    fill_wholly(store, methods, tell, OPERATION)
    found = {method: measured(store, method, tell, judge) for method in methods}
    rows = (
        row_of(found[line.method], None if line.against is None else found[line.against]) for line in experiment.lines
    )
    study = store.study
    return Table(
        name,
        experiment.title,
        experiment.claim,
        study.name,
        len(study.jobs),
        dict(study.settings),
        tuple(rows),
        provenance(),
    )


def measured(store: Store, method: Method, tell: Tell, judge: Judge | None = None) -> Measured:
    """What there is of a method whose videos are made: what was not measured yet is now."""
    folder = store.method(tuned(store, method))
    measure_videos(store, folder, store.method(FULL_PRECISION), method.title, tell)
    scores = {} if judge is None else judge(method)
    real = {name: score.videos for name, score in scores.items() if not score.path_check}
    about = folder.about
    assert about is not None
    named = msgspec.structs.replace(about, label=method.label, bits=method.bits)
    return Measured(folder.folder.name, named, [folder.video(job) for job in store.study.jobs], real)


def judge_by_vbench(store: Store, names: Sequence[str], fps: float, device: str, tell: Tell) -> Judge:
    """Asks VBench of each method's videos in the dimensions of ``names``; what was scored is not scored again.

    Raises:
        DvdqError: a dimension that there is none of or that asks for VBench's own prompts, no environment, or weights
            that are missing or random; before any video is made.
    """
    dimensions = chosen(OPERATION, tuple(names), standard=False)
    weights = weights_folder()
    check_weights(OPERATION, (dimension.name for dimension in dimensions), weights)
    if random := [dimension.name for dimension in dimensions if is_path_check(dimension.name, weights)]:
        raise DvdqError(OPERATION, where=random[0], expected="a judge's real weights", got="random ones")
    judges = Judges(Installed(vbench_python()), weights, fps, device)

    def scores(method: Method) -> Mapping[str, Score]:
        asked = Asked(store, (method,), dimensions)
        check_videos(asked, partial=False)
        score_all(asked, judges, tell)
        folder = asked.folder(method)
        assert folder is not None
        found = scores_of(folder)
        return {dimension.name: found[dimension.name] for dimension in dimensions}

    return scores


Maker = Callable[[Store, Path, Tell], None]
"""Writes the files of one table or figure into a folder."""

_OTHERS: Mapping[str, Maker] = MappingProxyType(
    {"table-5": table_5, "figure-3": figure_3, "figure-4": figure_4, "figure-5": figure_5}
)
NAMES = (*(f"table-{n}" for n in range(1, 6)), *(f"figure-{n}" for n in range(3, 7)), "beyond", "finish", "comfyui")


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
    table = build_table(name, narrowed(name, peers=peers, bits=bits), store, tell, judge)
    if chart := swept(table.rows):
        write_svg(out / f"{name}.svg", Charts([chart]))
    write_result(out, name, table, markdown(table_sheet(table)))
    return out / name


def needed(names: Sequence[str], *, peers: bool, bits: Sequence[str] = ()) -> tuple[Method, ...]:
    """The methods of some tables and figures, each once, in the order in which they first name them."""
    found = [m for name in names if name in EXPERIMENTS for m in narrowed(name, peers=peers, bits=bits).methods]
    if "figure-5" in names:
        found += [method for methods in SIDE_BY_SIDE.values() for method in methods]
    return tuple(dict.fromkeys(found))


def narrowed(name: str, *, peers: bool, bits: Sequence[str] = ()) -> Experiment:
    """An experiment, with or without other people's packages, with all widths or some beside full precision."""
    experiment = EXPERIMENTS[name]
    wanted = (FULL_PRECISION.bits, *bits)
    lines = [
        line
        for line in experiment.lines
        if (peers or line.method.peer is None) and (not bits or line.method.bits in wanted)
    ]
    if not peers:
        lines = [Line(line.method) if line.against is not None and line.against.peer else line for line in lines]
    return Experiment(experiment.title, tuple(lines), experiment.claim)
