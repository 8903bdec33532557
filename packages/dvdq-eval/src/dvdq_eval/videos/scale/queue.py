"""Which video comes next: plain bookkeeping, without processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dvdq_eval.videos.method import Method
from dvdq_eval.videos.study import Job

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
