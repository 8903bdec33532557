"""Seconds of a pass of the transformer, where they go, and what follows for a video."""

from __future__ import annotations

from collections import defaultdict

from dvdq_eval.charts.stacked import legend, stacked
from dvdq_eval.latency.results import Latency, LayerTime, MethodTime
from dvdq_eval.methods import title_of
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Cell, Chart, Charts, Column, Part, Section, Sheet, Text
from dvdq_eval.tables._page_sheet import plain

PARTS = ("products", "rotating and quantizing activations", "attention", "everything else")
"""Of a pass, in the order in which they are stacked."""
TAKEN_APART = (
    "The bars are passes that were taken apart, which costs time of its own: the seconds of untouched passes are those "
    "in the sheet."
)
GIB = 2**30


def latency(material: Material) -> Section | None:
    """The times of every run of the model."""
    found = material.of(Latency)
    if not found:
        return None
    parts = [part for file in found for part in _run(file.value)]
    return Section("latency", "Latency", parts, [file.source for file in found])


def _run(run: Latency) -> list[Part]:
    weights = "random weights" if run.weights == "random" else "the weights of a checkpoint"
    text = (
        f"One pass of {run.model} with {weights} on {run.device}: {run.frames} frames of {run.height} × {run.width}, "
        f"{run.tokens} tokens, batch {run.batch}, {run.dtype} where nothing is quantized. "
        + ("The methods took turns." if run.in_turns else "They did not fit together: one was measured after another.")
    )
    bars = [
        (title_of(m.label, m.bits), [m.parts.products, m.parts.rotate_quantize, m.parts.attention, m.parts.rest])
        for m in run.methods
    ]
    parts: list[Part] = [
        Text(text),
        _passes(run),
        Charts([Chart(stacked("Seconds of a pass by what they go to", "seconds", PARTS, bars))], legend(PARTS)),
        Text(TAKEN_APART, "note"),
    ]
    if run.videos:
        parts.append(_videos(run))
    return [*parts, *(_shapes(method) for method in run.methods if method.layers)]


def _passes(run: Latency) -> Sheet:
    columns = [
        Column("Method", first="ascending"),
        Column("Attention", "the backend that ran", "ascending", words=True),
        Column("Seconds a pass", "median, with the 20th and 80th percentile below", "ascending"),
        Column("Times as fast", "as full precision in the same run"),
        Column("Weights, GiB", "of the transformer on the device", "ascending"),
        Column("Peak, GiB", "of the device's memory during a pass", "ascending"),
    ]
    rows = [
        [
            Cell(title_of(m.label, m.bits), place),
            Cell(m.attention, m.attention),
            Cell(f"{m.step.p50:.4g}", m.step.p50, f"{m.step.p20:.4g}–{m.step.p80:.4g}"),
            Cell(f"{m.ratio:.2f}×", m.ratio),
            Cell(f"{m.weight_bytes / GIB:.3g}", m.weight_bytes),
            plain(m.peak_bytes, ".3g", 1 / GIB),
        ]
        for place, m in enumerate(run.methods)
    ]
    return Sheet("A pass of the transformer", columns, rows)


def _videos(run: Latency) -> Sheet:
    columns = [
        Column("Method", first="ascending"),
        Column("Steps", "at each width of the activations", "ascending"),
        Column("Passes a step"),
        Column("Seconds a video", "of all denoising steps: the sum of medians", "ascending"),
        Column("Times as fast", "as full precision"),
        Column("Mix from", "where the number of steps at each width comes from", "ascending", words=True),
    ]
    rows = []
    for place, video in enumerate(run.videos):
        mix = " + ".join(f"{steps} at {bits} bits" for bits, steps in video.steps_at.items())
        rows.append(
            [
                Cell(title_of(video.label, video.bits), place),
                Cell(mix, mix),
                Cell(str(video.passes), video.passes),
                Cell(f"{video.seconds:.4g}", video.seconds),
                Cell(f"{video.ratio:.2f}×", video.ratio),
                Cell(video.trace, video.trace),
            ]
        )
    return Sheet("A video, from the seconds of its passes", columns, rows)


def _shapes(method: MethodTime) -> Sheet:
    """Linears of one shape together."""
    alike: dict[tuple[int, int, int, str], list[LayerTime]] = defaultdict(list)
    for layer in method.layers:
        alike[layer.out_features, layer.in_features, layer.tokens, layer.kernels].append(layer)
    columns = [
        Column("Linear", "outputs × inputs", "ascending"),
        Column("Tokens"),
        Column("Kernels", "the plan that ran", "ascending", words=True),
        Column("Layers", "of this shape"),
        Column("Rotate and quantize, s", "all of them together"),
        Column("Products, s", "all of them together"),
    ]
    rows = []
    for (outputs, inputs, tokens, kernels), layers in alike.items():
        rotating, products = sum(layer.rotate_quantize for layer in layers), sum(layer.product for layer in layers)
        rows.append(
            [
                Cell(f"{outputs} × {inputs}", outputs * inputs),
                Cell(str(tokens), tokens),
                Cell(kernels, kernels),
                Cell(str(len(layers)), len(layers)),
                Cell(f"{rotating:.4g}", rotating),
                Cell(f"{products:.4g}", products),
            ]
        )
    return Sheet(f"{title_of(method.label, method.bits)} by the shapes of its linears", columns, rows, folded=True)
