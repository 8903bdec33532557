"""``memory.json`` and its tables: what a checkpoint weighs, part by part, and what one pass needs on top.

The file is one object with the fields of :class:`Memory`; nested objects have the fields of the classes below. Sizes
are bytes. What was not measured is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dvdq_eval.methods import title_of
from dvdq_eval.passes.subject import PassRecord
from dvdq_eval.sheets import Cell, Column, Sheet, markdown, megabytes, names, times

SCHEMA = 1


@dataclass(frozen=True)
class WeightBytes:
    """Parameters of the transformer, or of both if there are two, with what stays as it was counted in 16 bits.

    Attributes:
        quantized: weights of linears whose activations are quantized too, with scales and zero-points.
        weight_only: weights of linears whose activations stay full (W4A16); no biases, as in ``quantized``.
        kept: all other parameters.
    """

    quantized: int
    weight_only: int
    kept: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.quantized + self.weight_only + self.kept


@dataclass(frozen=True)
class MethodMemory:
    """One method at one activation width.

    Attributes:
        label, bits: e.g. ``DVD-Quant`` and ``W4A4``; full precision has no bits.
        weights: of the transformer.
        ratio: full precision's weights over these.
        counted_pass_bytes: of every tensor alive at once in a pass, beside weights and inputs; counted without running.
        measured_pass_bytes: what the device's allocator gave out in a pass at most, beside weights and inputs, buffers
            inside kernels included; null if no pass was run.
        fits: whether weights and a pass fitted into the device's memory; null if no pass was run.
    """

    label: str
    bits: str
    weights: WeightBytes
    ratio: float
    counted_pass_bytes: int
    measured_pass_bytes: int | None
    fits: bool | None


@dataclass(frozen=True)
class Memory(PassRecord):
    """One run.

    Attributes:
        components: files of a pipeline's other parts by name, e.g. ``text_encoder``; empty without a pipeline.
        methods: full precision first.
        device: on which passes were measured; null if none was.
        dtype: of activations.
        provenance: versions, machine, commit.
    """

    components: dict[str, int]
    methods: tuple[MethodMemory, ...]
    device: str | None
    dtype: str
    provenance: dict[str, Any]
    schema: int = SCHEMA


def memory_markdown(memory: Memory) -> str:
    """Weights by part and a pass by method, then a pipeline's other parts."""
    measured = "" if memory.device is None else f"; measured on {memory.device}"
    parts = [
        f"# Memory of {memory.model}, {memory.video}\n",
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
