"""Make the videos of a method that are not there yet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from typing import Any

from dvdq_eval.experiments.configuration import Configuration
from dvdq_eval.experiments.peer import make_videos_by_peer
from dvdq_eval.experiments.prepare import calibration_of, quantized_pipeline, tuned
from dvdq_eval.experiments.store import MethodFolder, Store
from dvdq_eval.experiments.study import Job, Study
from dvdq_eval.generation import generate
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.inspecting.sizes import LayerReport, describe, together
from dvdq_models.running.video import to_bytes
from dvdq_models.switching.hook import hooks_of
from dvdq_models.switching.schedule import average_bits
from dvdq_models.teacache import teacache_trace
from dvdq_reference.spec.recipe import Recipe


def make_videos(
    study: Study, store: Store, configuration: Configuration, tell: Tell, *, share: tuple[int, int] = (0, 1)
) -> MethodFolder:
    """Make what is missing of a method's videos, and give its folder.

    Args:
        study: prompts and noise.
        store: where they are kept.
        configuration: the method; its δ is tuned first if it is to reach an average.
        tell: told of progress.
        share: ``(i, n)`` makes the i-th of n parts alone, so that n processes can fill one store.
    """
    ready = tuned(study, store, configuration, tell)
    folder = store.method(ready)
    part, parts = share
    missing = folder.missing(job for job in study.jobs if job.number % parts == part)
    if missing or folder.about is None:
        if ready.peer is not None:
            make_videos_by_peer(study, ready, folder, missing, tell)
        else:
            maker, what = Maker(study, store, ready, tell), f"{ready.title}: generating"
            for done, job in enumerate(missing):
                tell(what, done, len(missing))
                maker.make(job)
            tell(what, len(missing), len(missing))
    return folder


class Maker:
    """A method whose δ is known, its pipeline loaded and quantized: it makes one video after another."""

    def __init__(self, study: Study, store: Store, configuration: Configuration, tell: Tell) -> None:
        self.study, self.configuration, self.folder = study, configuration, store.method(configuration)
        self._pipeline, seconds = quantized_pipeline(study, store, configuration, tell)
        where_from = provenance()
        self._commit = where_from["commit"]
        if self.folder.about is None:
            about = _about(study, store, self._pipeline, configuration, seconds, tell)
            self.folder.describe(about | {"provenance": where_from})

    def make(self, job: Job) -> None:
        """Generate one video and keep it with its seed, seconds and traces."""
        started = time.perf_counter()
        video = generate(self._pipeline, job.prompt, seed=job.seed, settings=self.study.settings, on_step=lambda: None)
        record = {"prompt": job.prompt, "seed": job.seed, "seconds": round(time.perf_counter() - started, 3)}
        traced = _traces(self._pipeline, self.configuration)
        self.folder.keep(job, to_bytes(video.frames), video.latents, record | traced | {"commit": self._commit})


def _traces(pipeline: Any, configuration: Configuration) -> dict[str, Any]:
    """How many bits each step ran at, and which passes a cache skipped."""
    traced: dict[str, Any] = {}
    if configuration.recipe is not None:
        trace = next(iter(hooks_of(pipeline).values())).trace
        traced["average_bits"] = average_bits(trace)
        traced["trace"] = [asdict(step) for step in trace]
    if configuration.teacache is not None:
        decisions = [step for transformer in transformers_of(pipeline).values() for step in teacache_trace(transformer)]
        traced["reused"] = sum(step.reused for step in decisions) / len(decisions)
    return traced


def _about(
    study: Study, store: Store, pipeline: Any, configuration: Configuration, seconds: float, tell: Tell
) -> dict[str, Any]:
    """The method's configuration and what it costs before the first video."""
    recipe = configuration.recipe
    parts = transformers_of(pipeline)
    size = together({name: describe(part, recipe or Recipe.named("minmax")) for name, part in parts.items()})
    smooths = recipe is not None and recipe.smoothing is not None
    return {
        "label": configuration.label,
        "bits": configuration.bits,
        "configuration": configuration.to_dict(),
        "bytes": size.bytes_before if recipe is None else size.bytes_after,
        "bytes_before": size.bytes_before,
        "bits_per_weight": 16.0 if recipe is None else _bits_per_weight(size.layers),
        "prepare_seconds": round(seconds, 3),
        "calibration_seconds": round(calibration_of(study, store, tell).seconds, 3) if smooths else None,
    }


def _bits_per_weight(layers: Sequence[LayerReport]) -> float:
    """Stored bits for each weight of the linears that are quantized, scales, zero-points and factors counted."""
    quantized = [layer for layer in layers if layer.treatment != "keep"]
    return 8 * sum(layer.bytes_after for layer in quantized) / sum(prod(layer.shape) for layer in quantized)
