"""The fastest tiles of one product on this GPU, and how they are forced upon it, compiled and timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from types import ModuleType
from typing import Any
from unittest.mock import patch

import _gpu
import torch
import triton
from _case import Job
from _search import descend, fastest, neighbours

from dvdq_kernels.backends.triton import tuning
from dvdq_kernels.backends.triton.launch import Launch, device_name_of, recording, target_of
from dvdq_kernels.backends.triton.tuning import Config, Task

REPEAT_MS = 60


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

    def task(self, device: torch.device) -> Task:
        """What the module asks for."""
        asked = []

        def remember(task: Task, on: torch.device) -> Config:
            asked.append(task)
            return tuning.choose(task, on)

        with patch.object(self.module, "choose", remember), recording(target_of(device), device_name_of(device)):
            self.jobs[0].call()
        return asked[0]


def launches_of(call: Callable[[], object], device: torch.device) -> list[Launch]:
    """The kernels that a call would start; the product is the last."""
    with recording(target_of(device), device_name_of(device)) as record:
        call()
    return record.launches


def compile_together(launches: Sequence[Launch]) -> list[Any]:
    """The compiled kernel of each, as a launch will find it; None for one that does not compile."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        triton.AsyncCompileMode(pool, ignore_errors=True),
    ):
        found = [
            launch.kernel.warmup(
                grid=launch.grid,
                num_warps=launch.warps,
                num_stages=launch.stages,
                **launch.arguments,
                **launch.constants,
            )
            for launch in launches
        ]
    return [kernel.kernel if isinstance(kernel, triton.FutureKernel) else kernel for kernel in found]


def time_all(subject: Subject, device: torch.device, configs: Sequence[Config]) -> dict[Config, float]:
    """Seconds with each config; infinite if it does not compile, does not fit or spills."""
    launches = []
    for config in configs:
        with subject.choosing(config):
            launches.append(launches_of(subject.jobs[0].call, device)[-1])
    times = {}
    for config, kernel in zip(configs, compile_together(launches), strict=True):
        times[config] = inf
        if kernel is None:
            continue
        with subject.choosing(config):
            try:
                subject.jobs[0].call()
            except triton.OutOfResources:
                continue
            # Known once the kernel is loaded: words of local memory that a thread takes.
            if not kernel.n_spills:
                times[config] = _gpu.measure([job.call for job in subject.jobs], REPEAT_MS).p50
    return times


def tune(subject: Subject, task: Task, device: torch.device, starts: Sequence[Config], end: float) -> dict[str, Any]:
    """A row of ``picks.json``."""
    target = target_of(device)
    first = tuning.rule(task, target)

    def around(config: Config) -> list[Config]:
        return [c for c in neighbours(config, tuning.SPACE) if tuning.is_legal(c, task, target)]

    allowed = [config for config in starts if tuning.is_legal(config, task, target)]
    times = descend([first, *allowed], around, partial(time_all, subject, device), lambda: time.monotonic() > end)
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
