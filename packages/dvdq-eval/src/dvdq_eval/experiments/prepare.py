"""What a method needs before its first video: statistics of activations, and the δ of its switch. Made once, kept."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

import torch

from dvdq_eval.experiments.configuration import Configuration
from dvdq_eval.experiments.store import Store, read_json, write_json
from dvdq_eval.experiments.study import TUNING_VIDEOS, Job, Study
from dvdq_eval.progress import Tell
from dvdq_kernels import quantize_weight
from dvdq_models.apply import quantize
from dvdq_models.calibration import Calibration, calibrate
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.switching.hook import follow
from dvdq_models.switching.tuning import best_trial, tune_delta
from dvdq_models.teacache import enable_teacache
from dvdq_reference.spec.errors import DvdqError

CALIBRATION = "calibration.safetensors"


def prepared_files(store: Store, configuration: Configuration) -> dict[str, bool]:
    """The files in a study's folder that the method needs before its first video, and whether each is there."""
    files = []
    if configuration.recipe is not None and configuration.recipe.smoothing is not None:
        files.append(CALIBRATION)
    if configuration.average is not None:
        files.append(_trials(configuration))
    return {name: (store.folder / name).exists() for name in files}


def calibration_of(study: Study, store: Store, tell: Tell) -> Calibration:
    """The study's statistics: the largest activations while full precision makes its preparing videos."""
    path = store.folder / CALIBRATION
    with store.alone(path.name):
        if not path.exists():
            pipeline, what = study.load(), "Calibrating SmoothQuant and ViDiT-Q"
            jobs = _preparing(study, None)
            tell(what, 0, 1)
            calibrate(pipeline, [(job.prompt, partial(_latents, study, pipeline, job)) for job in jobs]).save(path)
            tell(what, 1, 1)
    return Calibration.load(path)


def tuned(study: Study, store: Store, configuration: Configuration, tell: Tell) -> Configuration:
    """``configuration`` with the δ at which its switch reaches the wanted average on the preparing videos.

    TeaCache does not change δ: with it, the same switch runs on fewer steps.
    """
    if configuration.average is None:
        return configuration
    path = store.folder / _trials(configuration)
    with store.alone(path.name):
        found = read_json(path)
        if found is None:
            path.parent.mkdir(exist_ok=True)
            plain = dataclasses.replace(configuration, teacache=None)
            found = _find_delta(study, store, plain, configuration.average, tell)
            write_json(path, found)
    return configuration.with_delta(found["delta"])


def _trials(configuration: Configuration) -> str:
    return f"deltas/{dataclasses.replace(configuration, teacache=None).key}.json"


def _find_delta(study: Study, store: Store, configuration: Configuration, average: float, tell: Tell) -> dict[str, Any]:
    pipeline, _ = quantized_pipeline(study, store, configuration, tell)
    jobs, what = _preparing(study, TUNING_VIDEOS), f"{configuration.title}: choosing δ"
    tell(what, 0, 1)
    trials = tune_delta(pipeline, [partial(_latents, study, pipeline, job) for job in jobs], average)
    tell(what, 1, 1)
    return {
        "delta": best_trial(trials, average).delta,
        "wanted": average,
        "trials": [{"delta": trial.delta, "average": trial.average} for trial in trials],
    }


def quantized_pipeline(study: Study, store: Store, configuration: Configuration, tell: Tell) -> tuple[Any, float]:
    """A pipeline that runs as ``configuration`` says, and the seconds that quantizing its weights took."""
    recipe, seconds = configuration.recipe, 0.0
    smooths = recipe is not None and recipe.smoothing is not None
    # It runs a pipeline of its own: two may not fit.
    calibration = calibration_of(study, store, tell) if smooths else None
    pipeline = study.open()
    transformers = transformers_of(pipeline)
    if recipe is not None:
        for name, transformer in transformers.items():
            maxima = None if calibration is None else calibration.of(name)
            # What a backend compiles at its first call is no part of the method.
            quantize_weight(torch.ones(1, 256), dataclasses.replace(recipe.weight, group_size=None))
            progress = partial(_tell_layer, tell, f"{configuration.title}: quantizing")
            started = time.perf_counter()
            quantize(transformer, recipe, channel_maxima=maxima, progress=progress)
            seconds += time.perf_counter() - started
    study.place(pipeline)
    if recipe is not None:
        follow(pipeline)
    if configuration.teacache is not None:
        for transformer in transformers.values():
            enable_teacache(transformer, configuration.teacache, coefficients=study.teacache, pipeline=pipeline)
    return pipeline, seconds


def _preparing(study: Study, count: int | None) -> tuple[Job, ...]:
    jobs = study.preparing_jobs[:count]
    if not jobs:
        raise DvdqError("experiment", where="preparing", expected="prompts to calibrate and to choose δ on", got="none")
    return jobs


def _latents(study: Study, pipeline: Any, job: Job) -> None:
    pipeline(prompt=job.prompt, generator=job.noise(), output_type="latent", **study.settings)


def _tell_layer(tell: Tell, what: str, _: str, done: int, total: int) -> None:
    tell(what, done, total)
