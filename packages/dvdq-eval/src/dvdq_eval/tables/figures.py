"""Figures 1 and 5 (side by side), 3 (weight error a layer) and 4 (activations a channel)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dvdq_eval.charts.internals import error_charts, peak_charts
from dvdq_eval.charts.plot import write_svg
from dvdq_eval.contact_sheet import contact_sheet, side_by_side
from dvdq_eval.internals import PeakRecorder, layer_errors
from dvdq_eval.machine import provenance
from dvdq_eval.methods import BASELINES, FULL_PRECISION, Method
from dvdq_eval.progress import Tell
from dvdq_eval.records import replacing, write_record
from dvdq_eval.tables.catalogue import EXPERIMENTS, ours
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.prepare import tuned
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models import quantize
from dvdq_models.calibration import calibrate
from dvdq_models.running.video import Frames, write_mp4
from dvdq_reference.spec.recipe import Recipe, Rotation

SHOWN = 4
"""Prompts of the side-by-side picture."""
METHODS = tuple(line.method for line in EXPERIMENTS["table-1"].lines if line.method.label in BASELINES)
SIDE_BY_SIDE: Mapping[str, tuple[Method, ...]] = {
    bits: (FULL_PRECISION, *(method for method in METHODS if method.bits == bits), ours(best))
    for bits, best in (("W4A8", "W4A6"), ("W4A4", "W4A4"))
}
ROTATIONS: Mapping[str, Rotation] = {
    "rotated": Rotation("full"),
    "rotated, random signs": Rotation("full", seed=0),
    "rotated in regular blocks": Rotation("regular"),
}


def figure_3(store: Store, out: Path, tell: Tell) -> None:
    """``‖W - Ŵ‖² / ‖W‖²`` of every layer, by min-max and by BGR, both rotated: ``figure-3.json`` and ``.svg``."""
    original = store.study.open().transformer
    recipe = Recipe.named("dvd-quant", "W4A8")
    quantized = quantize(copy.deepcopy(original), recipe, progress=lambda _, done, all_: tell("Figure 3", done, all_))
    errors = layer_errors(original, quantized)
    ratio = [error.bgr_error / error.minmax_error for error in errors]
    values = {"pipeline": store.study.name, "recipe": recipe.to_dict(), "layers": [asdict(error) for error in errors]}
    write_record(out / "figure-3.json", values | {"median_ratio": float(np.median(ratio)), "provenance": provenance()})
    write_svg(out / "figure-3.svg", error_charts(errors))


def figure_4(store: Store, out: Path, tell: Tell) -> None:
    """``max |x|`` of each channel before and after rotation, of the layer with the largest outlier.

    ``figure-4.json`` and ``.svg``; ``crest`` is the largest channel's peak over the root mean square of all peaks.
    """
    pipeline = store.study.load()
    transformer, job = pipeline.transformer, store.study.jobs[0]
    layer = _layer_of_outliers(store.study, pipeline, tell)
    peaks: dict[str, list[float]] = {}
    for label, rotation in ROTATIONS.items():
        recorder = PeakRecorder(layer, rotation)
        with recorder.watching(transformer):
            pipeline(prompt=job.prompt, generator=job.noise(), output_type="latent", **store.study.settings)
        peaks["as it comes"], peaks[label] = recorder.peaks.before, recorder.peaks.after
    crest = {label: max(values) / float(np.sqrt(np.mean(np.square(values)))) for label, values in peaks.items()}
    values = {"pipeline": store.study.name, "layer": layer, "prompt": job.prompt, "peaks": peaks, "crest": crest}
    write_record(out / "figure-4.json", values | {"provenance": provenance()})
    write_svg(out / "figure-4.svg", peak_charts(layer, peaks, crest))


def figure_5(store: Store, out: Path, tell: Tell) -> None:
    """The first prompts by every method: ``figure-5-w4a8.png``, ``figure-5-w4a4.png`` and an ``.mp4`` of each."""
    jobs = store.study.jobs[:SHOWN]
    for bits, chosen in SIDE_BY_SIDE.items():
        fill_wholly(store, chosen, tell, "table")
        folders = [store.method(tuned(store, method)) for method in chosen]
        clips = [[folder.frames(job) for folder in folders] for job in jobs]
        titles, prompts = [method.title for method in chosen], [job.prompt for job in jobs]
        name = f"figure-5-{bits.lower()}"
        with replacing(out / f"{name}.png") as path:
            contact_sheet(prompts, titles, clips, scale=_enlargement(clips, 64)).save(path, optimize=True)
        with replacing(out / f"{name}.mp4") as path:
            write_mp4(path, side_by_side(prompts, titles, clips, scale=_enlargement(clips, 192)))


def _layer_of_outliers(study: Study, pipeline: Any, tell: Tell) -> str:
    """The quantized linear one of whose input channels stands out most from its others while a video is made."""
    job = study.jobs[0]
    make = partial(pipeline, job.prompt, generator=job.noise(), output_type="latent", **study.settings)
    tell("Figure 4", 0, 1)
    maxima = calibrate(pipeline, [(job.prompt, make)]).of("transformer")
    tell("Figure 4", 1, 1)
    peaks = {name: tensor.numpy() for name, tensor in maxima.items()}
    return max(peaks, key=lambda name: float(peaks[name].max() / np.median(peaks[name])))


def _enlargement(clips: Sequence[Sequence[Frames]], wanted: int) -> int:
    """The whole factor that brings a clip's longer side to ``wanted`` pixels or just below, at least 1."""
    longer: int = max(clips[0][0].shape[1:3])
    return max(1, wanted // longer)
