"""What a method needs before its first video: statistics of activations, the δ of its switch, a quantized pipeline."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

import torch

from dvdq_eval.methods import Method, weights_of
from dvdq_eval.progress import Tell
from dvdq_eval.records import find_record, write_record
from dvdq_eval.videos.records import DeltaRecord, Trial
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import TUNING_VIDEOS, Job, Study
from dvdq_kernels import quantize_weight
from dvdq_models.apply import quantize
from dvdq_models.calibration import Calibration, calibrate, statistics
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.switching.hook import attach, follow, hook_of
from dvdq_models.switching.tuning import best_trial, tune_delta
from dvdq_models.teacache.enable import disable_teacache, enable_teacache
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

CALIBRATIONS = {False: "calibration.safetensors", True: "moments.safetensors"}
"""By whether second moments are there too, which take minutes and megabytes more."""


def prepared_files(store: Store, method: Method) -> dict[str, bool]:
    """The files in a study's folder that the method needs before its first video, and whether each is there."""
    files = []
    if method.calibrated:
        files.append(CALIBRATIONS[method.feeds_back])
    if method.average is not None:
        files.append(_trials(method))
    return {name: (store.folder / name).exists() for name in files}


def _trials(method: Method) -> str:
    """Where the δ of a method is kept. TeaCache does not change it: with it, the same switch runs on fewer steps."""
    return f"deltas/{dataclasses.replace(method, teacache=None).key}.json"


class Pipelines:
    """A study's pipelines, one at a time, since two may not fit: each as a method says.

    Methods that differ in their schedule or in TeaCache alone run on the same quantized weights, one after another.
    """

    def __init__(self, store: Store, tell: Tell) -> None:
        self.store, self._tell = store, tell
        self._pipeline: Any = None
        self._weights: Recipe | None = None
        self._seconds = 0.0

    def load(self, method: Method) -> tuple[Any, float]:
        """A pipeline that runs as ``method``, whose δ is known, says, and the seconds that its weights took.

        It is the method's until the next call.
        """
        recipe, weights = method.recipe, weights_of(method.recipe)
        if self._pipeline is None or weights != self._weights:
            self._quantize(method)
            self._weights = weights
        transformers = transformers_of(self._pipeline)
        for transformer in transformers.values():
            disable_teacache(transformer)
            if recipe is not None:
                attach(transformer, recipe, hook_of(transformer).state)
        if recipe is not None:
            follow(self._pipeline)
        if method.teacache is not None:
            for transformer in transformers.values():
                coefficients = self.store.study.teacache
                enable_teacache(transformer, method.teacache, coefficients=coefficients, pipeline=self._pipeline)
        return self._pipeline, self._seconds

    def _quantize(self, method: Method) -> None:
        study, recipe = self.store.study, method.recipe
        self._pipeline, self._seconds = None, 0.0
        # It runs a pipeline of its own.
        calibration = self.calibration(moments=method.feeds_back) if method.calibrated else None
        pipeline = study.open()
        if recipe is not None:
            for name, transformer in transformers_of(pipeline).items():
                # What a backend compiles at its first call is no part of the method.
                plain = dataclasses.replace(recipe.weight, group_size=None, rounding="nearest")
                quantize_weight(torch.ones(1, 256), plain)
                progress = partial(_tell_layer, self._tell, f"{method.title}: quantizing")
                started = time.perf_counter()
                quantize(transformer, recipe, **statistics(calibration, recipe, name), progress=progress)
                self._seconds += time.perf_counter() - started
        study.place(pipeline)
        self._pipeline = pipeline

    def calibration(self, *, moments: bool = False) -> Calibration:
        """The study's statistics: the largest activations while full precision makes its preparing videos.

        With ``moments``, their second moments too.
        """
        study, path = self.store.study, self.store.folder / CALIBRATIONS[moments]
        with self.store.alone(path.name):
            if not path.exists():
                pipeline, what = study.load(), "Calibrating"
                videos = [(job.prompt, partial(_latents, study, pipeline, job)) for job in _preparing(study, None)]
                self._tell(what, 0, 1)
                calibrate(pipeline, videos, moments=moments).save(path)
                self._tell(what, 1, 1)
        return Calibration.load(path)

    def tuned(self, method: Method) -> Method:
        """``method`` with the δ at which its switch reaches the wanted average on the preparing videos."""
        if method.average is None:
            return method
        path = self.store.folder / _trials(method)
        with self.store.alone(path.name):
            found = find_record(path, DeltaRecord)
            if found is None:
                path.parent.mkdir(exist_ok=True)
                found = self._find_delta(dataclasses.replace(method, teacache=None), method.average)
                write_record(path, found)
        return method.with_delta(found.delta)

    def _find_delta(self, method: Method, average: float) -> DeltaRecord:
        study, what = self.store.study, f"{method.title}: choosing δ"
        jobs = _preparing(study, TUNING_VIDEOS)
        pipeline, _ = self.load(method)
        self._tell(what, 0, 1)
        trials = tune_delta(pipeline, [partial(_latents, study, pipeline, job) for job in jobs], average)
        self._tell(what, 1, 1)
        chosen = best_trial(trials, average).delta
        return DeltaRecord(chosen, average, tuple(Trial(trial.delta, trial.average) for trial in trials))


def trials_of(store: Store, method: Method) -> DeltaRecord | None:
    """The δ that was found for a method, and how."""
    return find_record(store.folder / _trials(method), DeltaRecord)


def tuned(store: Store, method: Method) -> Method:
    """``method`` with the δ that was found for it.

    Raises:
        DvdqError: none was.
    """
    if method.average is None:
        return method
    found = trials_of(store, method)
    if found is None:
        raise DvdqError("δ", where=method.title, expected="one that was chosen with the first video", got="none")
    return method.with_delta(found.delta)


def _preparing(study: Study, count: int | None) -> tuple[Job, ...]:
    jobs = study.preparing_jobs[:count]
    if not jobs:
        raise DvdqError("experiment", where="preparing", expected="prompts to calibrate and to choose δ on", got="none")
    return jobs


def _latents(study: Study, pipeline: Any, job: Job) -> None:
    pipeline(prompt=job.prompt, generator=job.noise(), output_type="latent", **study.settings)


def _tell_layer(tell: Tell, what: str, _: str, done: int, total: int) -> None:
    tell(what, done, total)
