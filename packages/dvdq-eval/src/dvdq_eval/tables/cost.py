"""Table 5: what the transformer weighs and how long a pass takes, against full precision in the same run."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from dvdq_eval.experiments.configuration import FULL_PRECISION, Configuration
from dvdq_eval.experiments.prepare import quantized_pipeline, tuned
from dvdq_eval.experiments.store import Store, write_json, write_text
from dvdq_eval.experiments.study import Study
from dvdq_eval.markdown import markdown
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.tables.catalogue import WIDTHS, ours
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.inspecting.sizes import describe, together
from dvdq_models.switching.hook import hooks_of
from dvdq_models.switching.schedule import average_bits
from dvdq_reference.spec.recipe import Recipe

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


def table_5(study: Study, store: Store, out: Path, tell: Tell) -> None:
    """Write ``table-5.json`` and ``.md``."""
    costs = measure_cost(study, store, tell)
    values = {"pipeline": study.name, "settings": dict(study.settings), "rows": [asdict(cost) for cost in costs]}
    write_json(out / "table-5.json", values | {"provenance": provenance()})
    write_text(out / "table-5.md", cost_markdown(costs))


def measure_cost(study: Study, store: Store, tell: Tell) -> list[Cost]:
    """Full precision and every width of DVD-Quant, their videos timed in turns so that all see the same machine."""
    configurations = [FULL_PRECISION, *(tuned(study, store, ours(bits), tell) for bits in WIDTHS)]
    pipelines = [quantized_pipeline(study, store, configuration, tell)[0] for configuration in configurations]
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
    for configuration, pipeline, taken in zip(configurations, pipelines, seconds, strict=True):
        costs.append(_cost(configuration, pipeline, taken[1:], costs[0].seconds if costs else None))
    return costs


def _cost(configuration: Configuration, pipeline: Any, taken: list[float], exact: float | None) -> Cost:
    recipe = configuration.recipe
    parts = transformers_of(pipeline)
    size = together({name: describe(part, recipe or Recipe.named("minmax")) for name, part in parts.items()})
    stored = size.bytes_before if recipe is None else size.bytes_after
    middle = median(taken)
    return Cost(
        label=configuration.title,
        activation_bits=16.0 if recipe is None else average_bits(next(iter(hooks_of(pipeline).values())).trace),
        bytes=stored,
        memory=size.bytes_before / stored,
        seconds=middle,
        fastest=min(taken),
        slowest=max(taken),
        rounds=len(taken),
        latency=1.0 if exact is None else exact / middle,
    )


def cost_markdown(costs: list[Cost]) -> str:
    """Sizes and times, and how many times smaller and faster than 16 bits."""
    header = ["method", "activation bits", "MB", "smaller", "seconds a video (range)", "times as fast"]
    return markdown(
        header,
        (
            [
                cost.label,
                f"{cost.activation_bits:.2f}",
                f"{cost.bytes / 1e6:.2f}",
                f"{cost.memory:.2f} ×",
                f"{cost.seconds:.2f} ({cost.fastest:.2f}–{cost.slowest:.2f})",
                f"{cost.latency:.2f} ×",
            ]
            for cost in costs
        ),
    )
