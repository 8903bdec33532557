"""Figures 1 and 5 (side by side), 3 (weight error a layer), 4 (activations a channel) and 6 (δ)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dvdq_eval.contact_sheet import contact_sheet, side_by_side
from dvdq_eval.experiments.configuration import FULL_PRECISION
from dvdq_eval.experiments.run import make_videos
from dvdq_eval.experiments.store import Store, replacing, write_json
from dvdq_eval.experiments.study import Study
from dvdq_eval.internals import PeakRecorder, layer_errors
from dvdq_eval.methods import BASELINES
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.tables.build import Table
from dvdq_eval.tables.catalogue import EXPERIMENTS, ours
from dvdq_models import quantize
from dvdq_models.calibration import calibrate
from dvdq_models.running.video import Frames, write_mp4
from dvdq_reference.spec.recipe import Recipe, Rotation

RIVAL, OURS = "#c2571a", "#1f6fb2"
SHOWN = 4
"""Prompts of the side-by-side picture."""
METHODS = tuple(line.configuration for line in EXPERIMENTS["table-1"].lines if line.configuration.label in BASELINES)
ROTATIONS: Mapping[str, Rotation] = {
    "rotated": Rotation("full"),
    "rotated, random signs": Rotation("full", seed=0),
    "rotated in regular blocks": Rotation("regular"),
}


def figure_3(study: Study, store: Store, out: Path, tell: Tell) -> None:
    """``‖W - Ŵ‖² / ‖W‖²`` of every layer, by min-max and by BGR, both rotated: ``figure-3.json`` and ``.png``."""
    original = study.open().transformer
    recipe = Recipe.named("dvd-quant", "W4A8")
    quantized = quantize(copy.deepcopy(original), recipe, progress=lambda _, done, all_: tell("Figure 3", done, all_))
    errors = layer_errors(original, quantized)
    ratio = [error.bgr_error / error.minmax_error for error in errors]
    values = {"pipeline": study.name, "recipe": recipe.to_dict(), "layers": [asdict(error) for error in errors]}
    write_json(out / "figure-3.json", values | {"median_ratio": float(np.median(ratio)), "provenance": provenance()})
    with _axes(out / "figure-3.png", "quantized layer, in the model's order", "weight error, % of ‖W‖²") as axes:
        x = np.arange(len(errors))
        for name, colour, label in (("minmax_error", RIVAL, "min-max"), ("bgr_error", OURS, "BGR")):
            axes.plot(x, [100 * getattr(e, name) for e in errors], ".-", color=colour, label=label, linewidth=0.8)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)


def figure_4(study: Study, store: Store, out: Path, tell: Tell) -> None:
    """``max |x|`` of each channel before and after rotation, of the layer with the largest outlier.

    ``figure-4.json`` and ``.png``; ``crest`` is the largest channel's peak over the root mean square of all peaks.
    """
    pipeline = study.load()
    transformer, job = pipeline.transformer, study.jobs[0]
    layer = _layer_of_outliers(study, pipeline, tell)
    peaks: dict[str, list[float]] = {}
    for label, rotation in ROTATIONS.items():
        recorder = PeakRecorder(layer, rotation)
        with recorder.watching(transformer):
            pipeline(prompt=job.prompt, generator=job.noise(), output_type="latent", **study.settings)
        peaks["as it comes"], peaks[label] = recorder.peaks.before, recorder.peaks.after
    crest = {label: max(values) / float(np.sqrt(np.mean(np.square(values)))) for label, values in peaks.items()}
    values = {"pipeline": study.name, "layer": layer, "prompt": job.prompt, "peaks": peaks, "crest": crest}
    write_json(out / "figure-4.json", values | {"provenance": provenance()})
    figure = Figure(figsize=(10, 2.6 * 2), layout="constrained")
    for axes, (label, heights) in zip(figure.subplots(2, 2, sharey=True).flat, peaks.items(), strict=True):
        colour = RIVAL if label == "as it comes" else OURS
        axes.fill_between(np.arange(len(heights)), heights, step="mid", color=colour, linewidth=0)
        axes.set_title(f"{label} (crest {crest[label]:.1f})", fontsize=9)
        _plain(axes, f"channel of {layer}", "max |x|")
    with replacing(out / "figure-4.png") as path:
        figure.savefig(path, dpi=120)


def figure_5(study: Study, store: Store, out: Path, tell: Tell) -> None:
    """The first prompts by every method: ``figure-5-w4a8.png``, ``figure-5-w4a4.png`` and an ``.mp4`` of each."""
    jobs = study.jobs[:SHOWN]
    for bits, best in (("W4A8", "W4A6"), ("W4A4", "W4A4")):
        chosen = [FULL_PRECISION, *(method for method in METHODS if method.bits == bits), ours(best)]
        folders = [make_videos(study, store, configuration, tell) for configuration in chosen]
        clips = [[folder.frames(job) for folder in folders] for job in jobs]
        titles, prompts = [configuration.title for configuration in chosen], [job.prompt for job in jobs]
        name = f"figure-5-{bits.lower()}"
        with replacing(out / f"{name}.png") as path:
            contact_sheet(prompts, titles, clips, scale=_enlargement(clips, 64)).save(path, optimize=True)
        with replacing(out / f"{name}.mp4") as path:
            write_mp4(path, side_by_side(prompts, titles, clips, scale=_enlargement(clips, 192)))


def plot_deltas(table: Table, path: Path) -> None:
    """Figure 6: average bits and PSNR, with its interval, over δ; the two constant widths are its ends."""
    rows = [row for row in table.rows if row.delta is not None]
    with _axes(path, "δ", "PSNR against full precision (dB)") as axes:
        values = [row.metrics["psnr_db"] for row in rows]
        deltas = [float(row.delta) for row in rows if row.delta is not None]
        error = [[v.mean - v.low for v in values], [v.high - v.mean for v in values]]
        axes.errorbar(deltas, [v.mean for v in values], error, fmt="o-", color=OURS, capsize=3)
        for end in (table.rows[0], table.rows[-1]):
            axes.axhline(end.metrics["psnr_db"].mean, color="0.6", linewidth=0.8, linestyle="--")
            axes.annotate(end.bits, (deltas[-1], end.metrics["psnr_db"].mean), ha="right", va="bottom", color="0.4")
        bits = axes.twinx()
        bits.plot(deltas, [row.average_bits or 0.0 for row in rows], "s--", color=RIVAL, markersize=4)
        bits.set_ylabel("average activation bits", color=RIVAL)
        bits.set_ylim(4, 8)
        bits.spines["top"].set_visible(False)


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


@contextmanager
def _axes(path: Path, x_label: str, y_label: str) -> Iterator[Axes]:
    """One plot that is written to ``path``."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    yield axes
    _plain(axes, x_label, y_label)
    with replacing(path) as new:
        figure.savefig(new, dpi=120)


def _plain(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="y", color="0.9", linewidth=0.6)
