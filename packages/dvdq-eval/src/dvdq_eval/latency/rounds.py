"""Passes in rounds: each method has its turn in each, so that all see the machine in the same moods.

A turn is an untouched pass and one that is taken apart. The first round warms up: kernels are compiled and tuned, the
allocator is filled. Nothing is flushed between passes or inside them: in a whole pass every kernel finds the caches as
the one before left them, which is how it runs when a video is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from dvdq_eval.latency.taps import Clock, Dissection, dissect
from dvdq_eval.machine import peak_bytes
from dvdq_eval.passes.running import Pass
from dvdq_reference.spec.errors import DvdqError


@dataclass
class Taken:
    """What was measured of a pass: seconds of the untouched ones, the others taken apart, and device memory."""

    seconds: list[float] = field(default_factory=list)
    apart: list[Dissection] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)


def take_rounds(
    passes: Sequence[Pass], rounds: int, clock: Clock, device: torch.device, tell: Callable[[int, int], None]
) -> list[Taken]:
    """Measure ``passes`` in turns over ``rounds`` rounds after one that warms up.

    Ctrl-C ends it with the rounds that are complete, if one is.

    Args:
        passes: all that take turns.
        rounds: that count.
        clock: of the device.
        device: whose memory is watched.
        tell: told how many turns are done, and of how many.

    Raises:
        DvdqError: a pass whose output is not finite.
    """
    taken = [Taken() for _ in passes]
    total = (1 + rounds) * len(passes)
    try:
        for number in range(1 + rounds):
            turns = []
            for place, turn in enumerate(passes):
                tell(number * len(passes) + place, total)
                turns.append(_take(turn, clock, device, check=number == 0))
            for kept, (seconds, peak, apart) in zip(taken, turns, strict=True):
                if number:
                    kept.seconds.append(seconds)
                    kept.apart.append(apart)
                    kept.peaks += [] if peak is None else [peak]
        tell(total, total)
    except KeyboardInterrupt:
        if not taken[0].seconds:
            raise
    return taken


def _take(turn: Pass, clock: Clock, device: torch.device, *, check: bool) -> tuple[float, int | None, Dissection]:
    turn.prepare()
    marks = []

    def untouched() -> None:
        clock.settle()
        marks.append(clock.mark())
        output = turn()
        marks.append(clock.mark())
        clock.settle()
        if check and not bool(output.isfinite().all()):
            raise DvdqError("latency", where=turn.title, expected="a finite output", got="NaN or Inf")

    peak = peak_bytes(device, untouched)
    turn.prepare()
    return clock.seconds(*marks), peak, dissect(turn.transformer, turn, clock)
