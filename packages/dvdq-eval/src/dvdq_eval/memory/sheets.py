"""The tables of ``memory.md``: what a checkpoint and a pass take by each method, and a pipeline's other parts."""

from __future__ import annotations

from dvdq_eval.memory.results import Memory, MethodMemory
from dvdq_eval.methods import title_of
from dvdq_eval.sheets.figures import megabytes, names, times
from dvdq_eval.sheets.markdown import markdown
from dvdq_eval.sheets.sheet import Cell, Column, Sheet


def memory_markdown(memory: Memory) -> str:
    """Weights by part and a pass by method, then a pipeline's other parts."""
    video = f"{memory.frames}x{memory.height}x{memory.width}"
    measured = "" if memory.device is None else f"; measured on {memory.device}"
    parts = [
        f"# Memory of {memory.model}, {video}\n",
        f"Weights of the transformer, and what a pass of {memory.tokens:,} tokens in {memory.dtype} needs beside "
        f"them{measured}.\n",
        markdown(memory_sheet(memory)),
    ]
    if memory.components:
        parts += ["The pipeline's other parts, as they are stored:\n", markdown(components_sheet(memory))]
    return "\n".join(parts)


def memory_sheet(memory: Memory) -> Sheet:
    """Weights by what a recipe does to them, and a pass."""
    columns = [
        Column("method", first="ascending"),
        Column("quantized", "weights of linears whose activations are quantized too", "ascending"),
        Column("weight only", "weights of linears whose activations stay full", "ascending"),
        Column("kept", "all other parameters", "ascending"),
        Column("together", "the transformer's weights, with scales and zero-points", "ascending"),
        Column("smaller", "than full precision's weights"),
        Column("a pass", "tensors alive at once beside weights and inputs, counted", "ascending"),
        Column("measured", "what the device's allocator gave out beside weights and inputs", "ascending"),
    ]
    labels = names([title_of(method.label, method.bits) for method in memory.methods])
    return Sheet(
        "Memory by method",
        columns,
        [[name, *_cells(method)] for name, method in zip(labels, memory.methods, strict=True)],
    )


def components_sheet(memory: Memory) -> Sheet:
    """The pipeline's other parts, as they are stored."""
    columns = [Column("part", first="ascending"), Column("size", "of its files")]
    rows = [[Cell(name, name), megabytes(size)] for name, size in memory.components.items()]
    return Sheet("Other parts of the pipeline", columns, rows)


def _cells(method: MethodMemory) -> list[Cell]:
    weights = method.weights
    sizes = (weights.quantized, weights.weight_only, weights.kept, weights.total)
    measured = megabytes(method.measured_pass_bytes)
    if method.measured_pass_bytes is None and method.fits is False:
        measured = Cell("does not fit", css="miss")
    return [*map(megabytes, sizes), times(method.ratio), megabytes(method.counted_pass_bytes), measured]
