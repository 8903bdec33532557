"""VBench's dimensions as columns of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dvdq_eval.progress import Tell
from dvdq_eval.tables.build import Judge
from dvdq_eval.vbench.coverage import check_videos
from dvdq_eval.vbench.dimensions import chosen
from dvdq_eval.vbench.environment import vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.score import Score, scores_of
from dvdq_eval.vbench.scoring import Judges, score_all
from dvdq_eval.vbench.study import Asked
from dvdq_eval.vbench.weights import check_weights, is_path_check, weights_folder
from dvdq_eval.videos.method import Method
from dvdq_eval.videos.store import Store
from dvdq_reference.spec.errors import DvdqError

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
