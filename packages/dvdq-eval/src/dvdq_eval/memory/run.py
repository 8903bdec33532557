"""``memory.json`` from beginning to end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from dvdq_eval.device import dtype_on, let_go, provenance_on
from dvdq_eval.memory.measured import measured_bytes
from dvdq_eval.memory.results import Memory, MethodMemory
from dvdq_eval.memory.weights import component_bytes, weight_parts
from dvdq_eval.passes.running import passes_of
from dvdq_eval.passes.sizes import pass_bytes
from dvdq_eval.passes.subject import Subject
from dvdq_eval.passes.variants import Variant, variants_of
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.videos.method import Method

OPERATION = "memory"


def measure_memory(
    subject: Subject,
    methods: Sequence[Method],
    *,
    device: torch.device | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Memory:
    """Count weights and a pass of ``subject`` by every method, and measure the pass on a device if there is one.

    Args:
        subject: what is counted.
        methods: full precision first; a schedule that switches is counted at each of its widths.
        device: on which passes run, in float32 on a CPU and bfloat16 on a GPU; None runs none and counts in bfloat16.
        tell: told of progress.

    Raises:
        DvdqError: a transformer that does not run on the example inputs of its family.
    """
    variants = variants_of(OPERATION, methods)
    dtype = torch.bfloat16 if device is None else dtype_on(device)
    exact = weight_parts(subject, None).total
    found: list[MethodMemory] = []
    for done, variant in enumerate(variants):
        tell("Methods", done, len(variants))
        weights, counted = weight_parts(subject, variant.recipe), pass_bytes(OPERATION, subject, variant.recipe, dtype)
        measured: dict[int, int] = {}
        if device is not None:
            measured = _measure(subject, variant, device)
            let_go(device)
        found += (
            MethodMemory(
                label=variant.label,
                bits=variant.bits(width),
                weights=weights,
                ratio=exact / weights.total,
                counted_pass_bytes=counted,
                measured_pass_bytes=measured.get(width),
                fits=None if device is None else width in measured,
            )
            for width in variant.widths
        )
    tell("Methods", len(variants), len(variants))
    frames, height, width = subject.video
    origin = provenance() if device is None else provenance_on(device)
    return Memory(
        model=subject.name,
        weights=subject.source,
        frames=frames,
        height=height,
        width=width,
        tokens=subject.tokens,
        batch=1,
        components=component_bytes(subject),
        methods=tuple(found),
        device=None if device is None else origin["device"],
        dtype=str(dtype).removeprefix("torch."),
        provenance=origin,
    )


def _measure(subject: Subject, variant: Variant, device: torch.device) -> dict[int, int]:
    """Bytes of a pass by width, as far as the device's memory goes; nobody holds it afterwards."""
    measured: dict[int, int] = {}
    with suppress(torch.OutOfMemoryError):
        for turn in passes_of(subject, variant, device):
            turn.prepare()
            measured[turn.width] = measured_bytes(device, turn)
    return measured
