"""``latency.json`` from beginning to end: which models are there at once, what they took, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dvdq_eval.device import dtype_on, let_go, provenance_on
from dvdq_eval.latency.clock import Clock, clock_of
from dvdq_eval.latency.medians import method_time
from dvdq_eval.latency.results import Latency, MethodTime
from dvdq_eval.latency.rounds import take_rounds
from dvdq_eval.latency.videos import Mix, add_up, check_mixes
from dvdq_eval.passes.running import Pass, passes_of
from dvdq_eval.passes.sizes import fit_together
from dvdq_eval.passes.subject import Subject
from dvdq_eval.passes.variants import FULL_WIDTH, Variant, variants_of
from dvdq_eval.progress import Tell
from dvdq_eval.videos.method import Method
from dvdq_models.running.attention import set_attention
from dvdq_reference.spec.errors import DvdqError

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
    tell: Tell = lambda what, done, total: None,
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
    frames, height, width = subject.video
    origin = provenance_on(device)
    return Latency(
        model=subject.name,
        weights=subject.source,
        frames=frames,
        height=height,
        width=width,
        tokens=subject.tokens,
        batch=1,
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
        for done, variant in enumerate(reversed(batch)):
            self.tell("Building", done, len(batch))
            turns[variant] = list(passes_of(self.subject, variant, self.device))
            transformer = turns[variant][0].transformer
            if self.attention is not None:
                set_attention(transformer, self.attention)
            if self.compiled:
                transformer.compile_repeated_blocks(fullgraph=True)
        self.tell("Building", len(batch), len(batch))
        return [turn for variant in batch for turn in turns[variant]]
