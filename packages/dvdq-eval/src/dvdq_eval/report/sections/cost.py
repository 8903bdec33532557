"""Seconds of a pass of the transformer and where they go, what a checkpoint weighs and a pass needs on top."""

from __future__ import annotations

from dvdq_eval.charts.plot import Chart, Charts
from dvdq_eval.charts.quality import legend, stacked
from dvdq_eval.latency.results import Latency, layers_sheet, passes_sheet, videos_sheet
from dvdq_eval.memory.results import Memory, MethodMemory, components_sheet, memory_sheet
from dvdq_eval.methods import title_of
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Part, Section, Text

PARTS = ("products", "rotating and quantizing activations", "attention", "everything else")
"""Of a pass, in the order in which they are stacked."""
HOLDERS = ("weights quantized with their activations", "weights quantized alone", "tensors of a pass", "weights kept")
"""Of the device's memory, in the order in which they are stacked."""
TAKEN_APART = (
    "The bars are passes that were taken apart, which costs time of its own: the seconds of untouched passes are those "
    "in the sheet."
)


def latency(material: Material) -> Section | None:
    """The times of every run of the model."""
    return material.section(Latency, "latency", "Latency", _latency_of)


def _latency_of(run: Latency) -> list[Part]:
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


def memory(material: Material) -> Section | None:
    """Sizes of every run of the model."""
    return material.section(Memory, "memory", "Memory", _memory_of)


def _memory_of(run: Memory) -> list[Part]:
    measured = f"passes were run on {run.device}" if run.device else "no pass was run"
    text = (
        f"{run.model} at {run.frames} frames of {run.height} × {run.width}, {run.tokens} tokens, batch {run.batch}, "
        f"activations in {run.dtype}. What is alive at once in a pass is counted without running; {measured}. "
        "The bars show a pass as it was measured, or as it was counted."
    )
    bars = [(title_of(m.label, m.bits), [size / 1e6 for size in _stacked(m)]) for m in run.methods]
    chart = Chart(stacked("Memory of a pass by what holds it", "MB", HOLDERS, bars))
    parts: list[Part] = [Text(text), memory_sheet(run), Charts([chart], legend(HOLDERS))]
    return [*parts, components_sheet(run)] if run.components else parts


def _stacked(method: MethodMemory) -> tuple[int, int, int, int]:
    weights = method.weights
    needed = method.counted_pass_bytes if method.measured_pass_bytes is None else method.measured_pass_bytes
    return weights.quantized, weights.weight_only, needed, weights.kept
