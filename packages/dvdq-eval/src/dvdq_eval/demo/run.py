"""The demo's run: generate with every method from the same noise, measure, and write one folder."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import nn

from dvdq_eval.demo.methods import FULL_PRECISION, QUANTIZED, Method
from dvdq_eval.demo.results import BitSwitching, Results, Row, Step, Trace, Video
from dvdq_eval.demo.write import CONTENTS, write_folder
from dvdq_eval.generation import Generated, generate, passes_timed
from dvdq_eval.internals import PeakRecorder, layer_errors
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.quality import psnr, relative_error, ssim
from dvdq_eval.staging import complete_folder
from dvdq_models import Recipe, quantize, trace
from dvdq_models.families import family_of
from dvdq_models.inspecting.sizes import describe
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.moving_shapes.clips import Scene
from dvdq_models.moving_shapes.detector import adherence
from dvdq_models.switching.hook import attach, hook_of
from dvdq_models.switching.schedule import StepDecision, average_bits
from dvdq_models.switching.tuning import best_trial, distances_of, tune_delta
from dvdq_reference.spec.recipe import DEFAULT_DELTA

WANTED_AVERAGE = 6.0


@dataclass(frozen=True)
class Run:
    """One method's outcome: its videos, each one's trace, the transformer, and seconds: of a video, in its passes."""

    method: Method
    transformer: nn.Module
    videos: list[Generated]
    traces: list[tuple[StepDecision, ...]]
    quantize_seconds: float | None
    video_seconds: float


def run_demo(
    pipeline: Any, out: Path, scenes: Sequence[Scene], *, seed: int, settings: Mapping[str, Any], tell: Tell
) -> Results:
    """Compare all methods on ``scenes`` and write the folder ``out``, complete or not at all.

    Args:
        pipeline: a diffusers text-to-video pipeline in full precision; it is left as it came.
        out: the folder to write; an earlier demo there is replaced.
        scenes: what to ask for; the video of scene i starts from the noise of ``seed + i`` under every method.
        seed: the first seed.
        settings: keyword arguments of the pipeline, ``num_inference_steps`` among them.
        tell: told of progress.
    """
    started = time.perf_counter()
    with complete_folder(out, CONTENTS) as folder:
        pipeline.set_progress_bar_config(disable=True)
        work = _Work(pipeline, scenes, seed, settings, tell)
        original = pipeline.transformer
        try:
            full, recorder = work.full_precision(original)
            delta, distances = work.choose_delta(original, full)
            runs = [full, *(work.quantized(original, method, delta) for method in QUANTIZED)]
        finally:
            pipeline.transformer = original
        tell("Measuring", 0, 1)
        videos = [_videos(run, full, scenes, seed) for run in runs]
        switching = next(run for run in runs if run.method.bits == "W4A6")
        results = Results(
            rows=[_row(run, full, measured) for run, measured in zip(runs, videos, strict=True)],
            videos=[video for measured in videos for video in measured],
            trace=_bit_switching(switching, scenes, delta, distances),
            layers=layer_errors(original, switching.transformer),
            activations=recorder.peaks,
            provenance={
                **provenance(),
                "model": f"moving shapes, {family_of(original).name}",
                "seed": seed,
                "settings": dict(settings),
                "recipes": {m.slug: work.recipe(m, delta).to_dict() for m in QUANTIZED},
            },
        )
        tell("Measuring", 1, 1)
        results.provenance["seconds"] = round(time.perf_counter() - started, 1)
        clips = {run.method: run.videos for run in runs}
        write_folder(folder, results, [scene.prompt for scene in scenes], clips, tell)
    return results


@dataclass
class _Work:
    """What every method shares; a model is quantized once for all widths of its activations."""

    pipeline: Any
    scenes: Sequence[Scene]
    seed: int
    settings: Mapping[str, Any]
    tell: Tell
    models: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def recipe(self, method: Method, delta: float) -> Recipe:
        """The method's recipe, its switch set to ``delta`` if it has one."""
        recipe = method.recipe
        if recipe.schedule.kind != "delta":
            return recipe
        return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, delta=delta))

    def full_precision(self, original: nn.Module) -> tuple[Run, PeakRecorder]:
        """The reference, with the distances between its steps and the activations of one layer of its first video."""
        transformer = copy.deepcopy(original)
        # No layer reads these bits: the hook measures the distances of a model that stays as it is.
        attach(transformer, Recipe.named("dvd-quant", "W4A8"), ActivationState(8))
        rotation = Recipe.named("dvd-quant").rotation
        assert rotation is not None
        recorder = PeakRecorder(_probed_layer(transformer), rotation)
        return self._generate(FULL_PRECISION.label, FULL_PRECISION, transformer, None, self.scenes, recorder), recorder

    def choose_delta(self, original: nn.Module, full: Run) -> tuple[float, list[float]]:
        """δ for an average of six bits, by trials on the first prompt, and the distances of the one that had it.

        Full precision's distances only set the first trial's switch: they know nothing of the error that a step at
        four bits brings, so a δ from them alone runs high too often.
        """
        (switching,) = (method for method in QUANTIZED if method.recipe.schedule.kind == "delta")
        transformer, seconds = self._quantize(original, switching, DEFAULT_DELTA)
        self.pipeline.transformer = transformer
        numbers = count(1)

        def video() -> None:
            label = f"Trial {next(numbers)} of the bit switch"
            self._generate(label, switching, transformer, seconds, self.scenes[:1])

        recorded = [distances_of(full.traces[0])]
        trials = tune_delta(self.pipeline, [video], WANTED_AVERAGE, recorded=recorded)
        best = best_trial(trials, WANTED_AVERAGE)
        return best.delta, best.distances[0]

    def quantized(self, original: nn.Module, method: Method, delta: float) -> Run:
        """The model under a method, run on every prompt."""
        transformer, seconds = self._quantize(original, method, delta)
        return self._generate(method.label, method, transformer, seconds, self.scenes)

    def _quantize(self, original: nn.Module, method: Method, delta: float) -> tuple[Any, float]:
        """A copy of the model quantized by the method, and the seconds that its weights took."""
        recipe = self.recipe(method, delta)
        if method.name not in self.models:
            transformer = copy.deepcopy(original)
            started = time.perf_counter()

            def layer_done(_: str, done: int, total: int) -> None:
                self.tell(f"{method.weights_label}: quantizing", done, total)

            quantize(transformer, recipe, progress=layer_done)
            self.models[method.name] = transformer, time.perf_counter() - started
        transformer, seconds = self.models[method.name]
        attach(transformer, recipe, hook_of(transformer).state)
        return transformer, seconds

    def _generate(
        self,
        label: str,
        method: Method,
        transformer: Any,
        quantize_seconds: float | None,
        scenes: Sequence[Scene],
        recorder: PeakRecorder | None = None,
    ) -> Run:
        self.pipeline.transformer = transformer
        steps = self.settings["num_inference_steps"]
        done, total = 0, steps * len(scenes)

        def step_done() -> None:
            nonlocal done
            done += 1
            self.tell(f"{label}: generating", done, total)

        videos, traces, seconds = [], [], []
        for number, scene in enumerate(scenes):
            # Who records slows the passes down: one video is enough, and the median is that of the others.
            recording = recorder.watching(transformer) if recorder is not None and number == 0 else nullcontext()
            with recording, passes_timed(transformer) as passes:
                video = generate(
                    self.pipeline, scene.prompt, seed=self.seed + number, settings=self.settings, on_step=step_done
                )
            videos.append(video)
            traces.append(trace(transformer))
            seconds.append(sum(passes))
        return Run(method, transformer, videos, traces, quantize_seconds, median(seconds))


def _probed_layer(transformer: nn.Module) -> str:
    """The middle one of the second feed-forward linears: what follows an activation function has the outliers."""
    treatments = family_of(transformer).treatments(transformer)
    names = [name for name, how in treatments.items() if how == "quantize" and name.endswith(".net.2")]
    return names[len(names) // 2]


def _videos(run: Run, full: Run, scenes: Sequence[Scene], seed: int) -> list[Video]:
    """Each video's own figures; full precision has no distance from itself."""
    itself = run is full
    return [
        Video(
            method=run.method.name,
            bits=run.method.bits,
            prompt=scene.prompt,
            seed=seed + number,
            psnr_db=None if itself else psnr(video.frames, reference.frames),
            ssim=None if itself else ssim(video.frames, reference.frames),
            latent_error=None if itself else relative_error(video.latents, reference.latents),
            adherence=adherence(video.clip, scene),
        )
        for number, (scene, video, reference) in enumerate(zip(scenes, run.videos, full.videos, strict=True))
    ]


def _row(run: Run, full: Run, videos: Sequence[Video]) -> Row:
    recipe = Recipe.named("dvd-quant") if run is full else run.method.recipe
    size = describe(run.transformer, recipe)
    stored = size.bytes_before if run is full else size.bytes_after

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Row(
        method=run.method.name,
        bits=run.method.bits,
        bytes=stored,
        compression=size.bytes_before / stored,
        average_bits=None if run is full else mean([average_bits(steps) for steps in run.traces]),
        psnr_db=mean([video.psnr_db for video in videos]),
        ssim=mean([video.ssim for video in videos]),
        latent_error=mean([video.latent_error for video in videos]),
        adherence={word: float(np.mean([v.adherence[word] for v in videos])) for word in videos[0].adherence},
        quantize_seconds=None if run.quantize_seconds is None else round(run.quantize_seconds, 2),
        video_seconds=round(run.video_seconds, 3),
        speedup=full.video_seconds / run.video_seconds,
    )


def _bit_switching(run: Run, scenes: Sequence[Scene], delta: float, distances: list[float]) -> BitSwitching:
    traces = [
        Trace(
            prompt=scene.prompt,
            average_bits=average_bits(steps),
            steps=[Step(s.step, s.bits, s.distance, s.accumulated, s.reason) for s in steps],
        )
        for scene, steps in zip(scenes, run.traces, strict=True)
    ]
    return BitSwitching(delta, WANTED_AVERAGE, distances, traces)
