"""``memory.json`` from beginning to end: what lies on disk, what a pass is counted to need, what it really took."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dvdq_eval.machine import dtype_on, let_go, peak_bytes, provenance, provenance_on
from dvdq_eval.memory.results import Memory, MethodMemory, WeightBytes
from dvdq_eval.methods import Method
from dvdq_eval.passes.running import Variant, pass_bytes, passes_of, variants_of
from dvdq_eval.passes.subject import Subject
from dvdq_eval.progress import Tell, silent, told
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.families.pipelines import TRANSFORMERS, PipelineFolder, transformer_configs
from dvdq_models.inspecting.sizes import describe, together
from dvdq_reference.spec.recipe import Recipe

OPERATION = "memory"


def measure_memory(
    subject: Subject,
    methods: Sequence[Method],
    *,
    device: torch.device | None = None,
    tell: Tell = silent,
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
    for variant in told(tell, "Methods", variants):
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
    origin = provenance() if device is None else provenance_on(device)
    return Memory(
        **subject.described,
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


def measured_bytes(device: torch.device, call: Callable[[], object]) -> int:
    """Bytes that ``call`` takes at most beside what was taken before it, after one call that warms up.

    A GPU's allocator keeps count. A CPU's tells the profiler of each allocation; libraries that bring their own
    allocator, such as a BLAS, are not seen.
    """
    call()
    if device.type != "cpu":
        peak = peak_bytes(device, call)
        assert peak is not None
        return peak
    # The profiler's library tells standard error of each start and stop, and of GPUs that are not there.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    live = most = 0
    for change in _changes(profiler):
        live += change
        most = max(most, live)
    return most


def _changes(profiler: profile) -> Iterator[int]:
    """Bytes allocated, or freed if negative, in their order."""
    recorded: Any = profiler.profiler
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        yield event.nbytes()


ANY_RECIPE = Recipe.named("minmax")
"""Which linears are quantized is the family's table, whatever the recipe."""


def weight_parts(subject: Subject, recipe: Recipe | None) -> WeightBytes:
    """The parameters of all transformers of ``subject``; without a recipe, the same linears in 16 bits."""
    configs = transformer_configs(subject.pipeline or subject.config)
    report = together(
        {name: describe(empty_transformer(config), recipe or ANY_RECIPE) for name, config in configs.items()}
    )
    parts: Counter[str] = Counter()
    for layer in report.layers:
        parts[layer.treatment] += layer.bytes_before if recipe is None else layer.bytes_after
    total = report.bytes_before if recipe is None else report.bytes_after
    quantized, weight_only = parts["quantize"], parts["weight-only"]
    return WeightBytes(quantized, weight_only, kept=total - quantized - weight_only)


def component_bytes(subject: Subject) -> dict[str, int]:
    """Bytes of the safetensors of each part of a pipeline that is no transformer."""
    if subject.pipeline is None:
        return {}
    names = PipelineFolder.open("memory", subject.pipeline).components
    sizes = {
        name: sum(path.stat().st_size for path in (subject.pipeline / name).glob("*.safetensors"))
        for name in names
        if name not in TRANSFORMERS
    }
    return {name: size for name, size in sizes.items() if size}
