"""δ for a wanted average, tuned on transformers whose distances depend on the bits that they run at."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from dvdq_models import DvdqError, Recipe, load, quantize, save
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.switching.hook import attach, hook_of
from dvdq_models.switching.schedule import choose_common_delta
from dvdq_models.switching.tuning import best_trial, distances_of, tune_delta, write_delta
from dvdq_reference.spec.recipe import BitSchedule

STEPS = 20


class Drifting(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """An output that turns a little each step, and is off by a fixed error at four bits."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self) -> None:
        super().__init__()
        self.state, self.speed = ActivationState(0), 0.0

    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor]:
        angle = self.speed * (1000.0 - timestep) * (1.0 + timestep / 1000.0)
        error = 0.05 if self.state.bits == 4 else 0.0
        return (torch.stack([angle.cos() + error, angle.sin() - error]),)


class Pipeline(SimpleNamespace):
    """As much of a pipeline as tuning needs: a transformer, and videos of it."""

    def video(self, speed: float) -> Callable[[], None]:
        def make() -> None:
            self.transformer.speed = speed
            self.videos += 1
            for time in torch.linspace(1000.0, 1.0, STEPS):
                self.transformer(torch.zeros(1), time)
            hook_of(self.transformer).reset_state(self.transformer)

        return make


@pytest.fixture
def pipeline() -> Pipeline:
    transformer = Drifting()
    attach(transformer, Recipe.named("dvd-quant", "W4A6"), transformer.state)
    return Pipeline(transformer=transformer, videos=0)


@pytest.mark.parametrize("wanted", [4.5, 5.0, 6.0, 7.0, 8.0])
def test_trials_come_nearer_than_the_recorded_distances_alone(pipeline: Pipeline, wanted: float) -> None:
    trials = tune_delta(pipeline, [pipeline.video(0.002)], wanted)
    misses = [abs(trial.average - wanted) for trial in trials]
    best = best_trial(trials, wanted)
    assert abs(best.average - wanted) == min(misses)
    assert hook_of(pipeline.transformer).recipe.schedule.delta == best.delta
    assert trials[0].delta == Recipe.named("dvd-quant", "W4A6").schedule.delta
    assert pipeline.videos == len(trials) <= 4
    for before, trial in pairwise(trials):
        assert trial.delta == choose_common_delta(before.distances, wanted)
        assert trial.count(8) + trial.count(4) == STEPS
        assert trial.average == (8 * trial.count(8) + 4 * trial.count(4)) / STEPS
    pipeline.video(0.002)()
    assert distances_of(hook_of(pipeline.transformer).trace) == best.distances[0]


def test_the_run_at_the_tuned_delta_has_the_wanted_average(pipeline: Pipeline) -> None:
    trials = tune_delta(pipeline, [pipeline.video(0.002)], 6.0, trials=8)
    # One step at the other width moves the average by 4 / STEPS.
    assert abs(best_trial(trials, 6.0).average - 6.0) <= 4 / STEPS
    assert abs(trials[0].average - 6.0) > 4 / STEPS


def test_one_delta_for_all_prompts(pipeline: Pipeline) -> None:
    videos = [pipeline.video(speed) for speed in (0.001, 0.002, 0.003)]
    trials = tune_delta(pipeline, videos, 6.0, trials=1)
    assert [len(trial.traces) for trial in trials] == [3, 3]
    assert trials[1].delta == choose_common_delta(trials[0].distances, 6.0)
    assert pipeline.videos == 6


def test_distances_recorded_before_save_the_first_run(pipeline: Pipeline) -> None:
    (first, *_) = tune_delta(pipeline, [pipeline.video(0.002)], 6.0, trials=1)
    pipeline.videos = 0
    (only,) = tune_delta(pipeline, [pipeline.video(0.002)], 6.0, trials=1, recorded=first.distances)
    assert only.delta == choose_common_delta(first.distances, 6.0)
    assert pipeline.videos == 1


def test_what_cannot_be_tuned_is_an_error(pipeline: Pipeline) -> None:
    video = [pipeline.video(0.002)]
    with pytest.raises(DvdqError, match="trials: expected at least 1, got 0"):
        tune_delta(pipeline, video, 6.0, trials=0)
    with pytest.raises(DvdqError, match="wanted: expected an average of 4 to 8, got 9"):
        tune_delta(pipeline, video, 9.0)
    assert pipeline.videos == 0
    attach(pipeline.transformer, Recipe.named("dvd-quant", "W4A8"), ActivationState(8))
    with pytest.raises(DvdqError, match=r"schedule: expected a delta schedule .* got constant"):
        tune_delta(pipeline, video, 6.0)


def test_delta_is_stored_for_both_experts_or_for_none(transformer: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("transformer", "transformer_2")]
    for folder in folders:
        save(quantize(copy.deepcopy(transformer), Recipe.named("minmax", "W4A6")), folder)
    before = [(folder / "config.json").read_text() for folder in folders]
    write_delta(tmp_path, 0.25)
    for folder in folders:
        assert hook_of(load(folder)).recipe.schedule.delta == 0.25
        assert not list(folder.glob(".*"))
    write_delta(tmp_path, 0.12)
    assert [(folder / "config.json").read_text() for folder in folders] == before
    config = json.loads(before[1])
    config["quantization_config"]["recipe"]["schedule"] = vars(BitSchedule("stp"))
    (folders[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(DvdqError, match=r"transformer_2/config\.json: expected a delta schedule, got stp"):
        write_delta(tmp_path, 0.25)
    assert (folders[0] / "config.json").read_text() == before[0]
    with pytest.raises(DvdqError, match="expected a pipeline with a quantized transformer"):
        write_delta(tmp_path / "nowhere", 0.25)
