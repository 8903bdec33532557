"""``latency.json`` from beginning to end: which models are there at once, what they took, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from statistics import median

import numpy as np
import torch
from torch import nn

from dvdq_eval.latency.results import Latency, LayerTime, MethodTime, Parts, Timing
from dvdq_eval.latency.rounds import Taken, take_rounds
from dvdq_eval.latency.taps import Clock, Dissection, clock_of
from dvdq_eval.latency.videos import Mix, add_up, check_mixes
from dvdq_eval.machine import dtype_on, let_go, provenance_on
from dvdq_eval.methods import Method
from dvdq_eval.passes.running import FULL_WIDTH, Pass, Variant, fit_together, passes_of, variants_of, weight_bytes
from dvdq_eval.passes.subject import Subject
from dvdq_eval.progress import Tell, silent, told
from dvdq_kernels.plan import plan_linear
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.running.attention import attention_of, set_attention
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

OPERATION = "latency"


def measure_latency(
    subject: Subject,
    methods: Sequence[Method],
    *,
    rounds: int,
    device: torch.device,
    attention: str | None = None,
    compiled: bool = False,
    mixes: Sequence[Mix] = (),
    steps: int | None = None,
    passes: int | None = None,
    clock: Clock | None = None,
    tell: Tell = silent,
) -> Latency:
    """Time one pass of ``subject`` by every method, untouched and taken apart.

    Methods of one recipe share its weights. All weights are on the device at once, so that all methods can take turns;
    if they do not fit there, each is built, measured and let go before the next, and the result says so.

    Args:
        subject: what runs.
        methods: full precision first.
        rounds: that count, after one that warms up.
        device: a CPU, which runs full precision in float32, or a GPU, in bfloat16.
        attention: a backend of diffusers; None is its default.
        compiled: whether untouched passes run blocks compiled by ``torch.compile``.
        mixes: of widths, of methods that switch.
        steps: of a video at a constant width; None is the first mix's number, or the pipeline's.
        passes: of each step; None is what the family's pipelines have.
        clock: None is the device's own.
        tell: told of progress.

    Raises:
        DvdqError: a method that switches without a mix, a mix that no method fits, or what cannot run here; before
            the first pass wherever it can be known then.
    """
    variants = variants_of(OPERATION, methods)
    check_mixes(OPERATION, methods, variants, mixes)
    let_go(device)
    in_turns = fit_together(OPERATION, subject, [variant.recipe for variant in variants], device)
    bench = Bench(subject, device, clock or clock_of(device), rounds, attention, compiled, tell)
    times: Times = {}
    for batch in [variants] if in_turns else [(variant,) for variant in variants]:
        try:
            times |= bench.measure(batch, times[variants[0]][FULL_WIDTH].step.p50 if times else None)
        except KeyboardInterrupt:
            if not times:
                raise
            break
        let_go(device)
        if any(time.step.rounds < rounds for at in times.values() for time in at.values()):
            break  # Ctrl-C
    if steps is None:
        steps = mixes[0].steps if mixes else subject.steps
    medians = {variant: {width: time.step.p50 for width, time in at.items()} for variant, at in times.items()}
    origin = provenance_on(device)
    return Latency(
        **subject.described,
        device=origin["device"],
        dtype=str(dtype_on(device)).removeprefix("torch."),
        methods=tuple(time for at in times.values() for time in at.values()),
        videos=add_up(medians, mixes, steps, passes or subject.passes),
        provenance=origin,
        in_turns=in_turns,
        compiled=compiled,
    )


Times = dict[Variant, dict[int, MethodTime]]
"""Of each variant at each of its widths."""


@dataclass(frozen=True)
class Bench:
    """One subject on one device.

    Attributes:
        subject: what runs.
        device: that runs it.
        clock: of the device.
        rounds: that count, after one that warms up.
        attention: a backend of diffusers; None is its default.
        compiled: whether untouched passes run blocks that ``torch.compile`` made one graph of each.
        tell: told of progress.
    """

    subject: Subject
    device: torch.device
    clock: Clock
    rounds: int
    attention: str | None
    compiled: bool
    tell: Tell

    def measure(self, batch: Sequence[Variant], exact: float | None) -> Times:
        """The times of variants that take turns; nobody holds them afterwards.

        Args:
            batch: the variants.
            exact: the median seconds of full precision; None if the batch begins with it.
        """
        try:
            turns = self._turns(batch)
            what = "Passes" if len(batch) > 1 else f"Passes, {batch[0].label}"
            taken = take_rounds(turns, self.rounds, self.clock, self.device, partial(self.tell, what))
        except torch.OutOfMemoryError as error:
            expected = "a transformer and a pass that fit into the device's memory"
            raise DvdqError("latency", where=self.subject.name, expected=expected, got=str(error)) from error
        times: Times = {}
        for turn, kept in zip(turns, taken, strict=True):
            time = method_time(turn, kept, exact, self.device)
            exact = exact or time.step.p50
            times.setdefault(turn.variant, {})[turn.width] = time
        return times

    def _turns(self, batch: Sequence[Variant]) -> list[Pass]:
        turns: dict[Variant, list[Pass]] = {}
        # Full precision last: while a checkpoint is quantized, a copy of it is on the device already.
        for variant in told(self.tell, "Building", batch[::-1]):
            turns[variant] = list(passes_of(self.subject, variant, self.device))
            transformer = turns[variant][0].transformer
            if self.attention is not None:
                set_attention(transformer, self.attention)
            if self.compiled:
                transformer.compile_repeated_blocks(fullgraph=True)
        return [turn for variant in batch for turn in turns[variant]]


def method_time(turn: Pass, taken: Taken, exact: float | None, device: torch.device) -> MethodTime:
    """The medians of one method.

    Args:
        turn: what ran.
        taken: what was measured of it.
        exact: the median seconds of a pass in full precision; None if this is it.
        device: that it ran on.
    """
    timing, weights = _summarize(taken.seconds), weight_bytes(turn.transformer)
    return MethodTime(
        label=turn.variant.label,
        bits=turn.variant.bits(turn.width),
        attention=attention_of(turn.transformer),
        step=timing,
        ratio=1.0 if exact is None else exact / timing.p50,
        parts=Parts(**{part.name: median(getattr(one, part.name) for one in taken.apart) for part in fields(Parts)}),
        layers=_layers(turn, taken.apart, device),
        peak_bytes=max(taken.peaks) + weights if taken.peaks else None,
        weight_bytes=weights,
    )


def _summarize(seconds: Sequence[float]) -> Timing:
    """Percentiles, between neighbours linearly."""
    p20, p50, p80 = map(float, np.percentile(seconds, [20, 50, 80]))
    return Timing(p20, p50, p80, len(seconds))


def _layers(turn: Pass, rounds: Sequence[Dissection], device: torch.device) -> tuple[LayerTime, ...]:
    layers = []
    for name, first in rounds[0].layers.items():
        layer, pieces = turn.transformer.get_submodule(name), [one.layers[name] for one in rounds]
        layers.append(
            LayerTime(
                name=name,
                out_features=layer.out_features,
                in_features=layer.in_features,
                tokens=first.tokens,
                rotate_quantize=median(piece.rotate_quantize for piece in pieces),
                product=median(piece.product for piece in pieces),
                kernels=_kernels_of(layer, turn.width, first.tokens, device),
            )
        )
    return tuple(layers)


def _kernels_of(layer: nn.Module, width: int, tokens: int, device: torch.device) -> str:
    if not isinstance(layer, QuantizedLinear):
        return "torch: linear"
    rule = None if layer.activation is None else dataclasses.replace(layer.activation, bits=width)
    shape = layer.out_features, layer.in_features
    return _kernels(tokens, *shape, layer.recipe.weight, rule, layer.rotation, device)


@cache
def _kernels(
    tokens: int,
    out_features: int,
    in_features: int,
    weight: WeightRule,
    activation: ActivationRule | None,
    rotation: Rotation | None,
    device: torch.device,
) -> str:
    """The backend that ``"auto"`` takes on ``device``, and what it starts."""
    shape = tokens, out_features, in_features
    plan = plan_linear(*shape, weight, activation, rotation, dtype=dtype_on(device), device=device)
    return f"{plan.backend}: {'; '.join(plan.kernels)}"
