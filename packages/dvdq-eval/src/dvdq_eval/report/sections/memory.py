"""What a checkpoint weighs, and what a pass needs on top."""

from __future__ import annotations

from dvdq_eval.charts.chart import Chart, Charts
from dvdq_eval.charts.stacked import legend, stacked
from dvdq_eval.memory.results import Memory, MethodMemory
from dvdq_eval.memory.sheets import components_sheet, memory_sheet
from dvdq_eval.methods import title_of
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Part, Section, Text

PARTS = ("weights quantized with their activations", "weights quantized alone", "tensors of a pass", "weights kept")
"""Of the device's memory, in the order in which they are stacked."""


def memory(material: Material) -> Section | None:
    """Sizes of every run of the model."""
    found = material.of(Memory)
    if not found:
        return None
    parts = [part for file in found for part in _run(file.value)]
    return Section("memory", "Memory", parts, [file.source for file in found])


def _run(run: Memory) -> list[Part]:
    measured = f"passes were run on {run.device}" if run.device else "no pass was run"
    text = (
        f"{run.model} at {run.frames} frames of {run.height} × {run.width}, {run.tokens} tokens, batch {run.batch}, "
        f"activations in {run.dtype}. What is alive at once in a pass is counted without running; {measured}. "
        "The bars show a pass as it was measured, or as it was counted."
    )
    bars = [(title_of(m.label, m.bits), [size / 1e6 for size in _stacked(m)]) for m in run.methods]
    chart = Chart(stacked("Memory of a pass by what holds it", "MB", PARTS, bars))
    parts: list[Part] = [Text(text), memory_sheet(run), Charts([chart], legend(PARTS))]
    return [*parts, components_sheet(run)] if run.components else parts


def _stacked(method: MethodMemory) -> tuple[int, int, int, int]:
    weights = method.weights
    needed = method.counted_pass_bytes if method.measured_pass_bytes is None else method.measured_pass_bytes
    return weights.quantized, weights.weight_only, needed, weights.kept
