"""Choosing δ for a wanted average width, by running the switch itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dvdq_models.families.configurations import CONFIG, is_ours, read_config, stored_recipe
from dvdq_models.families.pipelines import TRANSFORMERS
from dvdq_models.files.atomic import write_text
from dvdq_models.switching.hook import hooks_of, set_delta
from dvdq_models.switching.schedule import StepDecision, average_bits, choose_common_delta
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BitSchedule


@dataclass(frozen=True)
class Trial:
    """What the switch did at one δ: a trace for each video."""

    delta: float
    traces: tuple[tuple[StepDecision, ...], ...]

    @property
    def average(self) -> float:
        """Mean activation width over the steps of all videos."""
        return average_bits(list(chain(*self.traces)))

    @property
    def distances(self) -> list[list[float | None]]:
        """The distances of each video."""
        return [distances_of(trace) for trace in self.traces]

    def count(self, bits: int) -> int:
        """How many steps ran at ``bits``."""
        return sum(step.bits == bits and not step.skipped for step in chain(*self.traces))


def distances_of(trace: Sequence[StepDecision]) -> list[float | None]:
    """The distances of a trace, as :func:`~dvdq_models.switching.schedule.choose_delta` takes them.

    None for a step that a cache skipped.
    """
    return [step.distance for step in trace[1:]]


def tune_delta(
    pipeline: Any,
    videos: Sequence[Callable[[], Any]],
    wanted: float,
    *,
    trials: int = 3,
    recorded: Sequence[Sequence[float | None]] | None = None,
) -> list[Trial]:
    """Trials of the switch, each at the δ that the distances of the one before suggest; ``pipeline`` keeps the best.

    One recorded run is not enough: a step at four bits after one at eight moves the output by its own error, so the
    distances depend on the δ that they were recorded at. Trials end early when no step of any video could bring the
    average nearer.

    Args:
        pipeline: with a quantized transformer whose schedule is δ-guided.
        videos: each makes one video with ``pipeline``.
        wanted: the average width of activations, in bits.
        trials: how many to run, at least 1.
        recorded: the distances of videos made before, which set the first trial's δ; without them a first run at the
            pipeline's own δ records them, as a trial more.

    Returns:
        The trials in their order; :func:`best_trial` is the one whose δ the pipeline now has.

    Raises:
        DvdqError: no δ-guided schedule, no trial, an average out of reach, videos of fewer than three steps.
    """
    schedule = next(iter(hooks_of(pipeline).values())).recipe.schedule
    check_wanted(schedule, wanted, trials)
    assert schedule.delta is not None
    done: list[Trial] = []
    if recorded is None:
        done.append(_run(pipeline, videos, schedule.delta))
        recorded = done[0].distances
    for _ in range(trials):
        if done and abs(done[-1].average - wanted) <= _half_a_step(done[-1], schedule.high - schedule.low):
            break
        delta = choose_common_delta(
            recorded,
            wanted,
            schedule.low,
            schedule.high,
            first_high=schedule.first_high,
            last_high=schedule.last_high,
        )
        if any(trial.delta == delta for trial in done):
            break
        done.append(_run(pipeline, videos, delta))
        recorded = done[-1].distances
    set_delta(pipeline, best_trial(done, wanted).delta)
    return done


def check_wanted(schedule: BitSchedule, wanted: float, trials: int) -> None:
    """Refuse a schedule that is not δ-guided, an average that it cannot have, and no trial."""
    if schedule.delta is None:
        raise DvdqError("tune_delta", where="schedule", expected="a delta schedule (W4A6)", got=schedule.kind)
    if trials < 1:
        raise DvdqError("tune_delta", where="trials", expected="at least 1", got=trials)
    if not schedule.low <= wanted <= schedule.high:
        expected = f"an average of {schedule.low} to {schedule.high}"
        raise DvdqError("tune_delta", where="wanted", expected=expected, got=wanted)


def best_trial(trials: Sequence[Trial], wanted: float) -> Trial:
    """The trial whose average is nearest to ``wanted``, the first of equals."""
    return min(trials, key=lambda trial: abs(trial.average - wanted))


def write_delta(pipeline_folder: str | Path, delta: float) -> None:
    """Store δ in the recipe of every quantized transformer of a pipeline's folder; each file is replaced at once.

    Raises:
        DvdqError: no quantized transformer, or a recipe without a δ-guided schedule; nothing is then written.
    """
    configs = {}
    for name in TRANSFORMERS:
        path = Path(pipeline_folder) / name / CONFIG
        config = read_config("write_delta", path.parent) if path.is_file() else {}
        recipe = stored_recipe(config) if is_ours(config) else None
        if recipe is not None:
            if recipe.schedule.kind != "delta":
                raise DvdqError("write_delta", where=str(path), expected="a delta schedule", got=recipe.schedule.kind)
            config["quantization_config"]["recipe"]["schedule"]["delta"] = delta
            configs[path] = config
    if not configs:
        where = str(pipeline_folder)
        raise DvdqError("write_delta", where=where, expected="a pipeline with a quantized transformer", got="none")
    for path, config in configs.items():
        write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _run(pipeline: Any, videos: Sequence[Callable[[], Any]], delta: float) -> Trial:
    set_delta(pipeline, delta)
    (hook, *_) = hooks_of(pipeline).values()
    traces = []
    for make in videos:
        make()
        traces.append(tuple(hook.trace))
    return Trial(delta, tuple(traces))


def _half_a_step(trial: Trial, span: int) -> float:
    return span / (2 * sum(len(trace) for trace in trial.traces))
