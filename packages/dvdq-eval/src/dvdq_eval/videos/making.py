"""One video out of a diffusers text-to-video pipeline, and a method's videos, one after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dvdq_eval.machine import provenance
from dvdq_eval.methods import Method
from dvdq_eval.peers.generate import generate as one_video
from dvdq_eval.videos.prepare import Pipelines
from dvdq_eval.videos.records import MethodRecord, VideoRecord
from dvdq_eval.videos.study import Job
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.inspecting.sizes import LayerReport, ModelReport, describe, together
from dvdq_models.running.video import to_bytes
from dvdq_models.switching.hook import hooks_of
from dvdq_models.switching.schedule import average_bits
from dvdq_models.teacache.enable import teacache_trace
from dvdq_reference.spec.recipe import Recipe


@dataclass(frozen=True)
class Generated:
    """A video: ``frames`` ``[frames, height, width, 3]`` in ``[0, 1]`` and ``latents`` ``[channels, time, h, w]``."""

    frames: NDArray[np.float32]
    latents: NDArray[np.float32]


def generate(pipeline: Any, prompt: str, *, seed: int, settings: Mapping[str, Any]) -> Generated:
    """Run ``pipeline`` once from the noise of ``seed``; ``settings`` are its keyword arguments."""
    return Generated(**one_video(pipeline, prompt, seed, settings))


@contextmanager
def passes_timed(transformers: Iterable[nn.Module]) -> Iterator[list[float]]:
    """The seconds of every pass of ``transformers`` inside the block, in order, until the call returns."""
    seconds: list[float] = []
    started = 0.0

    def before(*_: object) -> None:
        nonlocal started
        started = time.perf_counter()

    def after(*_: object) -> None:
        seconds.append(time.perf_counter() - started)

    with ExitStack() as handles:
        for transformer in transformers:
            for handle in (transformer.register_forward_pre_hook(before), transformer.register_forward_hook(after)):
                handles.callback(handle.remove)
        yield seconds


class Maker:
    """A method whose δ is known, its pipeline loaded and quantized: it makes one video after another."""

    def __init__(self, pipelines: Pipelines, method: Method) -> None:
        self.method, self.folder = method, pipelines.store.method(method)
        study = pipelines.store.study
        self._settings, self._on_cpu = study.settings, study.device == "cpu"
        self._pipeline, seconds = pipelines.load(method)
        where_from = provenance()
        self._commit = where_from["commit"]
        if self.folder.about is None:
            size, recipe = size_of(self._pipeline, method), method.recipe
            known = pipelines.calibration(moments=method.feeds_back) if method.calibrated else None
            self.folder.describe(
                MethodRecord(
                    label=method.label,
                    bits=method.bits,
                    configuration=method.to_dict(),
                    bytes=size.bytes_before if recipe is None else size.bytes_after,
                    bytes_before=size.bytes_before,
                    bits_per_weight=16.0 if recipe is None else _bits_per_weight(size.layers),
                    prepare_seconds=round(seconds, 3),
                    calibration_seconds=None if known is None else round(known.seconds, 3),
                    provenance=where_from,
                )
            )

    def make(self, job: Job) -> None:
        """Generate one video and keep it with its seed, seconds and traces."""
        started = time.perf_counter()
        with passes_timed(transformers_of(self._pipeline).values()) as passes:
            video = generate(self._pipeline, job.prompt, seed=job.seed, settings=self._settings)
        record = VideoRecord(
            prompt=job.prompt,
            seed=job.seed,
            seconds=round(time.perf_counter() - started, 3),
            # A GPU is still at work when a call returns.
            pass_seconds=round(sum(passes), 4) if self._on_cpu else None,
            commit=self._commit,
            **self._traces(),
        )
        self.folder.keep(job, to_bytes(video.frames), video.latents, record)

    def _traces(self) -> dict[str, Any]:
        """How many bits each step ran at, and which passes a cache skipped."""
        traced: dict[str, Any] = {}
        if self.method.recipe is not None:
            trace = next(iter(hooks_of(self._pipeline).values())).trace
            traced |= {"average_bits": average_bits(trace), "trace": tuple(trace)}
        if self.method.teacache is not None:
            decisions = [step for part in transformers_of(self._pipeline).values() for step in teacache_trace(part)]
            traced["reused"] = sum(step.reused for step in decisions) / len(decisions)
        return traced


def size_of(pipeline: Any, method: Method) -> ModelReport:
    """The checkpoint of all of a pipeline's transformers as ``method`` leaves it; of full precision, before it."""
    recipe = method.recipe or Recipe.named("minmax")  # which linears are quantized is the same by any
    return together({name: describe(part, recipe) for name, part in transformers_of(pipeline).items()})


def _bits_per_weight(layers: Sequence[LayerReport]) -> float:
    """Stored bits for each weight of the linears that are quantized, scales, zero-points and factors counted."""
    quantized = [layer for layer in layers if layer.treatment != "keep"]
    return 8 * sum(layer.bytes_after for layer in quantized) / sum(prod(layer.shape) for layer in quantized)
