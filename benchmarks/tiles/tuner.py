"""The fastest tiles of one product on this GPU, and how they are forced upon it, compiled and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from math import inf
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.measuring import gpu
from benchmarks.measuring.case import Job
from benchmarks.tiles.search import descend, fastest, neighbours
from dvdq_kernels.gpu import device_name_of, recording

REPEAT_MS = 60

Launch = Any
Config = Any
Task = Any
"""Each backend has its own, in its modules ``launch`` and ``tuning``."""


@dataclass(frozen=True)
class Backend:
    """What the tuner has to know of a backend.

    Attributes:
        name: as users give it.
        integer: the module that chooses the tiles of integer products.
        weight_only: that of products of full activations; None if nothing is chosen there.
        compile_together: launches for a compute capability on all cores, where a launch will find them; None for one
            that does not compile.
        spills: whether a thread of what was compiled, and run since, takes local memory.
        refusal: what is raised where a kernel does not fit.
    """

    name: str
    integer: ModuleType
    weight_only: ModuleType | None
    compile_together: Callable[[Sequence[Launch], int], list[Any]]
    spills: Callable[[Any], bool]
    refusal: type[Exception]

    def module(self, name: str) -> ModuleType:
        """One of its modules, such as ``tuning``, that every backend with tiles has."""
        return import_module(f"dvdq_kernels.backends.{self.name}.{name}")

    def target_of(self, device: torch.device) -> int:
        """The compute capability that it chooses tiles for."""
        found: int = self.module("target").target_of(device)
        return found


def launches_of(backend: Backend, call: Callable[[], object], device: torch.device) -> list[Launch]:
    """The kernels that a call would start on ``device``; the product is the last."""
    with recording(backend.target_of(device), device_name_of(device)) as record:
        call()
    return record.launches


@dataclass(frozen=True)
class Subject:
    """A product to tune: the module that chooses its tiles, and the calls that its repeats take turns over."""

    module: ModuleType
    jobs: Sequence[Job]

    @contextmanager
    def choosing(self, config: Config) -> Iterator[None]:
        """In a ``with`` block the module takes ``config``, whatever it is asked."""
        with patch.object(self.module, "choose", lambda task, device: config):
            yield

    def task(self, backend: Backend, device: torch.device) -> Task | None:
        """What the module asks for; None if another kernel multiplies."""
        with patch.object(self.module, "choose", wraps=backend.module("tuning").choose) as choose:
            launches_of(backend, self.jobs[0].call, device)
        return choose.call_args.args[0] if choose.called else None


def time_all(
    backend: Backend, subject: Subject, device: torch.device, configs: Sequence[Config]
) -> dict[Config, float]:
    """Seconds with each config; infinite if it does not compile, does not fit or spills."""
    launches = []
    for config in configs:
        with subject.choosing(config):
            launches.append(launches_of(backend, subject.jobs[0].call, device)[-1])
    times = dict.fromkeys(configs, inf)
    for config, compiled in zip(configs, backend.compile_together(launches, backend.target_of(device)), strict=True):
        if compiled is None:
            continue
        with subject.choosing(config):
            try:
                subject.jobs[0].call()
            except backend.refusal:
                continue
            if not backend.spills(compiled):
                times[config] = gpu.measure([job.call for job in subject.jobs], REPEAT_MS).p50
    return times


def tune(
    backend: Backend, subject: Subject, task: Task, device: torch.device, starts: Sequence[Config], end: float
) -> dict[str, Any]:
    """A row of ``picks.json``."""
    tuning, target = backend.module("tuning"), backend.target_of(device)
    first = tuning.rule(task, target)

    def around(config: Config) -> list[Config]:
        return [c for c in neighbours(config, tuning.SPACE) if tuning.is_legal(c, task, target)]

    allowed = [config for config in starts if tuning.is_legal(config, task, target)]
    times = descend(
        [first, *allowed], around, partial(time_all, backend, subject, device), lambda: time.monotonic() > end
    )
    best = fastest(times)
    with subject.choosing(best):
        subject.jobs[0].check(subject.jobs[0].call())
    return {
        "task": asdict(task),
        "config": {axis: getattr(best, axis) for axis in tuning.SPACE},
        "microseconds": round(times[best] * 1e6, 2),
        "rule_microseconds": None if times[first] == inf else round(times[first] * 1e6, 2),
        "tried": len(times),
    }
