"""What a checkpoint weighs, and what a pass needs on top."""

from __future__ import annotations

from dvdq_eval.charts.stacked import legend, stacked
from dvdq_eval.memory.results import Memory, MethodMemory
from dvdq_eval.methods import title_of
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Cell, Chart, Charts, Column, Part, Section, Sheet, Text
from dvdq_eval.tables._page_sheet import plain

PARTS = ("weights quantized with their activations", "weights quantized alone", "tensors of a pass", "weights kept")
"""Of the device's memory, in the order in which they are stacked."""
MIB = 2**20


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
    bars = [(title_of(m.label, m.bits), [size / MIB for size in _stacked(m)]) for m in run.methods]
    chart = Chart(stacked("Memory of a pass by what holds it", "MiB", PARTS, bars))
    parts: list[Part] = [Text(text), _methods(run), Charts([chart], legend(PARTS))]
    return [*parts, _components(run)] if run.components else parts


def _stacked(method: MethodMemory) -> tuple[int, int, int, int]:
    weights = method.weights
    needed = method.counted_pass_bytes if method.measured_pass_bytes is None else method.measured_pass_bytes
    return weights.quantized, weights.weight_only, needed, weights.kept


def _methods(run: Memory) -> Sheet:
    columns = [
        Column("Method", first="ascending"),
        Column("Weights, MiB", "of the transformer, with scales and zero-points", "ascending"),
        Column("Smaller", "than full precision's weights"),
        Column("Quantized, MiB", "weights of linears whose activations are quantized too", "ascending"),
        Column("Weight-only, MiB", "weights of linears whose activations stay full", "ascending"),
        Column("Kept, MiB", "all other parameters", "ascending"),
        Column("A pass, counted, MiB", "tensors alive at once beside weights and inputs", "ascending"),
        Column("A pass, measured, MiB", "what the device's allocator gave out beside weights and inputs", "ascending"),
        Column("Fits", "weights and a pass into the device's memory", "ascending"),
    ]
    rows = []
    for place, method in enumerate(run.methods):
        weights = method.weights
        sizes = (weights.quantized, weights.weight_only, weights.kept)
        passes = (method.counted_pass_bytes, method.measured_pass_bytes)
        rows.append(
            [
                Cell(title_of(method.label, method.bits), place),
                plain(weights.total, ",.2f", 1 / MIB),
                Cell(f"{method.ratio:.2f}×", method.ratio),
                *(plain(size, ",.2f", 1 / MIB) for size in (*sizes, *passes)),
                _fits(method.fits),
            ]
        )
    return Sheet("Memory by method", columns, rows)


def _fits(fits: bool | None) -> Cell:
    if fits is None:
        return Cell("–")
    return Cell("yes", "yes") if fits else Cell("no", "no", css="miss")


def _components(run: Memory) -> Sheet:
    columns = [Column("Part", first="ascending"), Column("MiB", "of its files")]
    rows = [[Cell(name, name), plain(size, ",.2f", 1 / MIB)] for name, size in run.components.items()]
    return Sheet("Other parts of the pipeline", columns, rows)
