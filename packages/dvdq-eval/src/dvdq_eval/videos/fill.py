"""Make every video that a study's methods lack, in this process or by workers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dvdq_eval.progress import Tell
from dvdq_eval.videos.method import Configuration
from dvdq_eval.videos.prepare import tuned
from dvdq_eval.videos.run import Maker
from dvdq_eval.videos.scale.streak import OPERATION, Streak
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_reference.spec.errors import DvdqError


def generate_all(
    study: Study,
    store: Store,
    configurations: Sequence[Configuration],
    tell: Tell,
    *,
    workers: int = 1,
    address: str | None = None,
    threads: int = 1,
) -> int:
    """Make what is missing, and give the number of videos that could not be made.

    A video depends on its study, method, prompt, seed and, in the last bits, on ``threads``: the same videos result
    from any number of workers in any order, and a run that was stopped goes on with what is there. A video that fails
    leaves ``<video>.failed.json`` and the others are made; the next run tries it again. A worker that dies loses the
    video that it was at; one at which a video failed is replaced, as its device may be in no state to go on.

    Args:
        study: prompts and noise.
        store: where they are kept; this process alone writes there.
        configurations: the methods; each δ is tuned first if it is to reach an average.
        tell: told of progress.
        workers: how many; each has a pipeline, on a GPU of its own if the study runs on one. One worker and no address
            is this process.
        address: of a Ray cluster; None starts one on this machine.
        threads: of a CPU, for each worker.

    Raises:
        DvdqError: somebody else's package among the methods, a device with a number where workers get one each, no Ray,
            workers that cannot start, or :data:`~dvdq_eval.videos.scale.streak.HOPELESS` videos in a row that fail.
    """
    for configuration in configurations:
        if configuration.peer is not None:
            raise DvdqError(OPERATION, where=configuration.title, expected="a recipe", got="somebody else's package")
    if workers == 1 and address is None:
        torch.set_num_threads(threads)
        streak = Streak()
        return sum(_make_here(study, store, configuration, streak, tell) for configuration in configurations)
    if study.device not in ("cpu", "cuda"):
        raise DvdqError(
            OPERATION, where="--device", expected="cpu or cuda, of which a worker gets one", got=study.device
        )
    from dvdq_eval.videos.scale.run import make_by_workers  # needs Ray, which is optional

    return make_by_workers(study, store, configurations, tell, workers=workers, address=address, threads=threads)


def _make_here(study: Study, store: Store, configuration: Configuration, streak: Streak, tell: Tell) -> int:
    ready = tuned(study, store, configuration, tell)
    jobs, what, failures = store.method(ready).missing(study.jobs), f"{ready.title}: generating", 0
    maker = Maker(study, store, ready, tell) if jobs else None
    for done, job in enumerate(jobs):
        tell(what, done, len(jobs))
        assert maker is not None
        try:
            maker.make(job)
        except Exception as error:
            failures += 1
            maker.folder.fail(job, said := f"{type(error).__name__}: {error}")
            streak.failed(said)
        else:
            streak.made()
    tell(what, len(jobs), len(jobs))
    return failures
