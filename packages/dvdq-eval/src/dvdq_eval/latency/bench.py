"""Where passes are measured: a device, its clock, and the transformers that are on it together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dvdq_eval.latency.clock import Clock
from dvdq_eval.latency.medians import method_time
from dvdq_eval.latency.passes import Pass, passes_of
from dvdq_eval.latency.results import MethodTime
from dvdq_eval.latency.rounds import take_rounds
from dvdq_eval.latency.subject import Subject
from dvdq_eval.latency.variants import Variant
from dvdq_eval.progress import Tell
from dvdq_models.running.attention import set_attention
from dvdq_reference.spec.errors import DvdqError

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
