"""Seconds of a pass of the transformer, where they go, and what follows for a video."""

from __future__ import annotations

from dvdq_eval.charts.chart import Chart, Charts
from dvdq_eval.charts.stacked import legend, stacked
from dvdq_eval.latency.results import Latency
from dvdq_eval.latency.sheets import layers_sheet, passes_sheet, videos_sheet
from dvdq_eval.methods import title_of
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Part, Section, Text

PARTS = ("products", "rotating and quantizing activations", "attention", "everything else")
"""Of a pass, in the order in which they are stacked."""
TAKEN_APART = (
    "The bars are passes that were taken apart, which costs time of its own: the seconds of untouched passes are those "
    "in the sheet."
)


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
        passes_sheet(run),
        Charts([Chart(stacked("Seconds of a pass by what they go to", "seconds", PARTS, bars))], legend(PARTS)),
        Text(TAKEN_APART, "note"),
    ]
    if run.videos:
        parts.append(videos_sheet(run))
    return [*parts, layers_sheet(run)] if any(method.layers for method in run.methods) else parts
