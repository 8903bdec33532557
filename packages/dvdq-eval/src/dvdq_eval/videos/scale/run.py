"""Videos by Ray: workers ask a queue, and what they made is written by the one process that started them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

from dvdq_eval.methods import Method
from dvdq_eval.progress import Tell
from dvdq_eval.videos.fill import OPERATION, Streak
from dvdq_eval.videos.prepare import prepared_files, tuned
from dvdq_eval.videos.scale.worker import Failed, Worker
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Job, Study
from dvdq_reference.spec.errors import DvdqError

# Ray would report its use to its makers, and hide the GPUs of a worker that asks for none.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_DIED = (RayActorError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
"""What Ray says of a worker that is gone, or taken for gone."""
ATTEMPTS = 3
"""Workers that may die over one video before it counts as failed."""


@dataclass(frozen=True)
class Task:
    """A video of a method."""

    method: Method
    job: Job


class Queue:
    """Videos that nobody makes yet.

    A worker goes on with the method that it has loaded, as quantizing a model takes longer than a video may; one that
    has none left takes the method with the most videos waiting.
    """

    def __init__(self, jobs: Mapping[Method, Sequence[Job]]) -> None:
        self._waiting = {method: list(reversed(todo)) for method, todo in jobs.items()}
        self._attempts: dict[Task, int] = {}

    def __len__(self) -> int:
        return sum(len(todo) for todo in self._waiting.values())

    def take(self, loaded: Method | None) -> Task | None:
        """The next video of a worker that has ``loaded``; None if no video waits."""
        if not len(self):
            return None
        best = max(self._waiting, key=lambda method: len(self._waiting[method]))
        method = loaded if loaded is not None and self._waiting.get(loaded) else best
        task = Task(method, self._waiting[method].pop())
        self._attempts[task] = self._attempts.get(task, 0) + 1
        return task

    def put_back(self, task: Task) -> bool:
        """A video whose worker died waits again, first in its row; False if that happened too often."""
        if self._attempts[task] >= ATTEMPTS:
            return False
        self._waiting[task.method].append(task.job)
        return True


def make_by_workers(
    store: Store,
    methods: Sequence[Method],
    tell: Tell,
    *,
    workers: int,
    address: str | None,
    threads: int,
) -> int:
    """:func:`dvdq_eval.videos.fill.fill` with workers."""
    with _cluster(store.study, workers, address, threads):
        crew = _Crew(store, threads)
        ready = [_prepared(store, method, crew, tell) for method in methods]
        run = _Run(store, crew, {method: store.method(method).missing(store.study.jobs) for method in ready})
        return run.finish(workers, tell)


@contextmanager
def _cluster(study: Study, workers: int, address: str | None, threads: int) -> Iterator[None]:
    """Ray with room for the workers; they end with the block."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    local = {"address": "local", "num_cpus": workers * threads, "include_dashboard": False}
    where = local if address is None else {"address": address}
    if address is None:
        _check_temporary()
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **where)
    except ConnectionError as error:
        raise DvdqError(OPERATION, where="--address", expected="a running Ray cluster", got=address) from error
    try:
        needs = {"CPU": threads, "GPU": 1 if study.device == "cuda" else 0}
        room = sum(_room(node["Resources"], needs) for node in ray.nodes() if node["Alive"])
        if room < workers:
            each = " and ".join(f"{count} {name}" for name, count in needs.items() if count)
            expected = f"room for {workers} workers of {each} each"
            raise DvdqError(OPERATION, where=address or "this machine", expected=expected, got=f"room for {room}")
        yield
    finally:
        ray.shutdown()


def _check_temporary() -> None:
    """In a virtual environment's folder Ray's workers end as they start, and Ray would wait for them for ever."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).resolve()
    environment = os.environ.get("VIRTUAL_ENV")
    if environment and folder.is_relative_to(Path(environment).resolve()):
        expected = "a temporary folder outside of the virtual environment"
        raise DvdqError(OPERATION, where="RAY_TMPDIR", expected=expected, got=str(folder))


def _room(there: Mapping[str, float], needs: Mapping[str, int]) -> int:
    """Workers that a machine can hold."""
    return min(int(there.get(name, 0) // count) for name, count in needs.items() if count)


class _Crew:
    """Starts workers, and counts those that could not start, one after another."""

    def __init__(self, store: Store, threads: int) -> None:
        self._arguments = (store.study, store.folder.name, threads)
        gpus = 1 if store.study.device == "cuda" else 0
        self._actor: Any = ray.remote(Worker).options(num_cpus=threads, num_gpus=gpus)
        self._failed_starts = 0

    def start(self) -> Any:
        """A new worker, which may still be starting."""
        return self._actor.remote(*self._arguments)

    def started(self) -> None:
        """A worker gave its first answer."""
        self._failed_starts = 0

    def start_failed(self, error: Exception) -> None:
        """A worker died before its first answer, which too many must not."""
        self._failed_starts += 1
        if self._failed_starts >= ATTEMPTS:
            raise DvdqError(OPERATION, where="worker", expected="one that starts", got=_last_line(error)) from error


def _prepared(store: Store, method: Method, crew: _Crew, tell: Tell) -> Method:
    """The method with its δ; what that takes is made by a worker, as this process may have no GPU."""
    while not all(prepared_files(store, method).values()):
        what = f"{method.title}: preparing"
        tell(what, 0, 1)
        worker = crew.start()
        try:
            files = ray.get(worker.prepare.remote(method, store.read(prepared_files(store, method))))
        except RayTaskError as error:
            raise error.cause from None
        except _DIED as error:
            crew.start_failed(error)
            continue
        else:
            crew.started()
            ray.get(worker.close.remote())
        finally:
            ray.kill(worker)
        store.take_over(files)
        tell(what, 1, 1)
    return tuned(store, method)


class _Run:
    """One pass over all that is missing."""

    def __init__(self, store: Store, crew: _Crew, jobs: dict[Method, list[Any]]) -> None:
        self._store, self._crew, self._queue = store, crew, Queue(jobs)
        self._files = {method: ray.put(store.read(prepared_files(store, method))) for method in jobs}
        self._totals = {method: len(todo) for method, todo in jobs.items()}
        self._done = dict.fromkeys(jobs, 0)
        self._loaded: dict[Any, Method] = {}
        self._failures, self._streak = 0, Streak()

    def finish(self, workers: int, tell: Tell) -> int:
        """Make everything; gives the number of videos that could not be made."""
        busy: dict[Any, tuple[Any, Task | None]] = {}
        idle: list[Any] = []
        for _ in range(min(workers, len(self._queue))):
            self._begin(busy)
        self._show(tell)
        while len(self._queue) or any(task is not None for _, task in busy.values()):
            (answer,), _ = ray.wait(list(busy))
            worker, task = busy.pop(answer)
            try:
                self._receive(answer, task)
                idle.append(worker)
            except (*_DIED, Failed) as error:
                ray.kill(worker)
                self._lost(task, error)
                if len(self._queue):
                    self._begin(busy)
            self._show(tell)
            while idle and (next_task := self._queue.take(self._loaded.get(idle[-1]))):
                worker = idle.pop()
                self._loaded[worker] = next_task.method
                made = worker.make.remote(next_task.method, next_task.job, self._files[next_task.method])
                busy[made] = worker, next_task
        ray.get([worker.close.remote() for worker in idle])
        return self._failures

    def _begin(self, busy: dict[Any, tuple[Any, Task | None]]) -> None:
        """A new worker gets its first video when it has started: one that never does keeps none waiting."""
        worker = self._crew.start()
        busy[worker.__ray_ready__.remote()] = worker, None

    def _receive(self, answer: Any, task: Task | None) -> None:
        """Write what a worker made."""
        try:
            files = ray.get(answer)
        except RayTaskError as error:
            raise error.cause from None
        self._crew.started()
        if task is None:
            return
        folder = self._store.method(task.method)
        about = files.pop("method.json")
        if folder.about is None:
            self._store.take_over({f"{folder.folder.name}/method.json": about})
        folder.take_over(task.job, files)
        self._done[task.method] += 1
        self._streak.made()

    def _lost(self, task: Task | None, error: Exception) -> None:
        """A worker is gone: over a video that failed, or that waits again, or before its first."""
        if task is None:
            self._crew.start_failed(error)
        elif isinstance(error, Failed):
            self._fail(task, str(error))
        elif not self._queue.put_back(task):
            self._fail(task, f"its worker died {ATTEMPTS} times: {_last_line(error)}")

    def _fail(self, task: Task, error: str) -> None:
        self._store.method(task.method).fail(task.job, error)
        self._failures += 1
        self._done[task.method] += 1
        self._streak.failed(error)

    def _show(self, tell: Tell) -> None:
        for method, total in self._totals.items():
            tell(f"{method.title}: generating", self._done[method], total)


def _last_line(error: Exception) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
