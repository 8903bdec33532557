"""The table of one experiment over a study's videos, which are made and measured where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.tables.catalogue import Experiment
from dvdq_eval.tables.rows import Measured, Table, row_of
from dvdq_eval.vbench.score import Score
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.method import FULL_PRECISION, Method
from dvdq_eval.videos.prepare import tuned
from dvdq_eval.videos.store import MethodFolder, Store

Judge = Callable[[Method], Mapping[str, Score]]
"""Gives VBench's scores of a method whose videos are made, by dimension."""


def build_table(name: str, experiment: Experiment, store: Store, tell: Tell, judge: Judge | None = None) -> Table:
    """Make and measure what is missing, and summarise.

    A row bears the experiment's name of its method, whatever another table called the same method when its videos were
    made. ``judge`` asks VBench of each method; what it said with random weights is no metric.
    """
    methods = experiment.methods
    fill_wholly(store, methods, tell, "table")
    reference = store.method(FULL_PRECISION)
    found = {method: _measured(store, method, reference, tell, judge) for method in methods}
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


def _measured(store: Store, method: Method, reference: MethodFolder, tell: Tell, judge: Judge | None) -> Measured:
    folder = store.method(tuned(store, method))
    measure_videos(store, folder, reference, method.title, tell)
    scores = {} if judge is None else judge(method)
    real = {name: score.videos for name, score in scores.items() if not score.path_check}
    about = folder.about
    assert about is not None
    named = msgspec.structs.replace(about, label=method.label, bits=method.bits)
    return Measured(folder.folder.name, named, [folder.video(job) for job in store.study.jobs], real)
