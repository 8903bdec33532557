"""The table of one experiment over a study's videos, which are made, measured and judged where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.tables.catalogue import Experiment
from dvdq_eval.tables.rows import Measured, Table, row_of
from dvdq_eval.vbench.dimensions import chosen
from dvdq_eval.vbench.environment import vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.score import Score, scores_of
from dvdq_eval.vbench.scoring import Judges, score_all
from dvdq_eval.vbench.study import Asked, check_videos
from dvdq_eval.vbench.weights import check_weights, is_path_check, weights_folder
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.method import FULL_PRECISION, Method
from dvdq_eval.videos.prepare import tuned
from dvdq_eval.videos.store import Store
from dvdq_reference.spec.errors import DvdqError

Judge = Callable[[Method], Mapping[str, Score]]
"""Gives VBench's scores of a method whose videos are made, by dimension."""


def build_table(name: str, experiment: Experiment, store: Store, tell: Tell, judge: Judge | None = None) -> Table:
    """Make and measure what is missing, and summarise.

    A row bears the experiment's name of its method, whatever another table called the same method when its videos were
    made. ``judge`` asks VBench of each method; what it said with random weights is no metric.
    """
    methods = experiment.methods
    fill_wholly(store, methods, tell, "table")
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


OPERATION = "table"


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
