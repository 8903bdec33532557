"""Table 5: what the transformer weighs and how long a pass takes, against full precision in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from dvdq_eval.machine import provenance
from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.progress import Tell
from dvdq_eval.records import write_result
from dvdq_eval.sheets import Cell, Column, Sheet, figure, markdown, names, span, times
from dvdq_eval.tables.catalogue import WIDTHS, ours
from dvdq_eval.videos.making import size_of
from dvdq_eval.videos.prepare import Pipelines
from dvdq_eval.videos.store import Store
from dvdq_models.switching.hook import hooks_of
from dvdq_models.switching.schedule import average_bits

ROUNDS = 5
"""Videos of each method that are timed, in turns; the first of each warms up and does not count."""


@dataclass(frozen=True)
class Cost:
    """One method: bytes of the transformer's weights, seconds a video without decoding, and both against 16 bits.

    ``bits`` of the activations is the mean over the steps that ran. Seconds are the median of ``rounds`` videos.
    """

    label: str
    activation_bits: float
    bytes: int
    memory: float
    seconds: float
    fastest: float
    slowest: float
    rounds: int
    latency: float


def table_5(store: Store, out: Path, tell: Tell) -> None:
    """Write ``table-5.json`` and ``.md``."""
    costs = measure_cost(store, tell)
    values = {
        "pipeline": store.study.name,
        "settings": dict(store.study.settings),
        "rows": [asdict(cost) for cost in costs],
    }
    write_result(out, "table-5", values | {"provenance": provenance()}, markdown(cost_sheet(costs)))


def measure_cost(store: Store, tell: Tell) -> list[Cost]:
    """Full precision and every width of DVD-Quant, their videos timed in turns so that all see the same machine."""
    study = store.study
    methods = [FULL_PRECISION, *(Pipelines(store, tell).tuned(ours(bits)) for bits in WIDTHS)]
    # All of them at once: each has its own.
    pipelines = [Pipelines(store, tell).load(method)[0] for method in methods]
    seconds: list[list[float]] = [[] for _ in pipelines]
    job, total = study.jobs[0], (1 + ROUNDS) * len(pipelines)
    for turn in range(1 + ROUNDS):
        for number, pipeline in enumerate(pipelines):
            tell("Table 5: timing", turn * len(pipelines) + number, total)
            started = time.perf_counter()
            pipeline(prompt=job.prompt, generator=job.noise(), output_type="latent", **study.settings)
            seconds[number].append(time.perf_counter() - started)
    tell("Table 5: timing", total, total)
    costs: list[Cost] = []
    for method, pipeline, taken in zip(methods, pipelines, seconds, strict=True):
        costs.append(_cost(method, pipeline, taken[1:], costs[0].seconds if costs else None))
    return costs


def _cost(method: Method, pipeline: Any, taken: list[float], exact: float | None) -> Cost:
    recipe = method.recipe
    size = size_of(pipeline, method)
    stored = size.bytes_before if recipe is None else size.bytes_after
    middle = median(taken)
    return Cost(
        label=method.title,
        activation_bits=16.0 if recipe is None else average_bits(next(iter(hooks_of(pipeline).values())).trace),
        bytes=stored,
        memory=size.bytes_before / stored,
        seconds=middle,
        fastest=min(taken),
        slowest=max(taken),
        rounds=len(taken),
        latency=1.0 if exact is None else exact / middle,
    )


def cost_sheet(costs: Sequence[Cost]) -> Sheet:
    """Sizes and times, and how many times smaller and faster than 16 bits."""
    columns = [
        Column("method", first="ascending"),
        Column("activation bits", "mean over the steps that ran", "ascending"),
        Column("MB", "of the transformer's checkpoint", "ascending"),
        Column("smaller", "than in 16 bits"),
        Column("seconds a video", "without decoding: the median", "ascending", note="range"),
        Column("times as fast", "as full precision in the same run"),
    ]
    rows = [
        [
            name,
            figure(cost.activation_bits, ".2f"),
            figure(cost.bytes, ".2f", 1e-6),
            times(cost.memory),
            Cell(f"{cost.seconds:.2f}", cost.seconds, note=span(cost.fastest, cost.slowest, ".2f")),
            times(cost.latency),
        ]
        for name, cost in zip(names([cost.label for cost in costs]), costs, strict=True)
    ]
    return Sheet(f"Size and time, {costs[0].rounds} videos of each method", columns, rows)
