"""``memory.json``: what a checkpoint weighs, part by part, and what one pass needs on top.

The file is one object with the fields of :class:`Memory`; nested objects have the fields of the classes below. Sizes
are bytes. What was not measured is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
class Memory:
    """One run.

    Attributes:
        model: a name, e.g. of the configuration.
        weights: ``random``, or the model that they came with.
        frames, height, width: of the video in pixels; ``tokens`` of it in the transformer.
        batch: how many samples a pass has.
        components: files of a pipeline's other parts by name, e.g. ``text_encoder``; empty without a pipeline.
        methods: full precision first.
        device: on which passes were measured; null if none was.
        dtype: of activations.
        provenance: versions, machine, commit.
    """

    model: str
    weights: str
    frames: int
    height: int
    width: int
    tokens: int
    batch: int
    components: dict[str, int]
    methods: tuple[MethodMemory, ...]
    device: str | None
    dtype: str
    provenance: dict[str, Any]
    schema: int = SCHEMA
