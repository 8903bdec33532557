"""Which activation width comes next: one small decider a schedule (Eq. 11 and Sec. 4.3)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import isfinite

import numpy as np

from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BitSchedule

FIRST_HIGH = 2
"""Steps that run high because no distance exists before them."""

NUM_STEPS = "the number of steps, which dvdq_models.switching.hook.follow(pipeline) finds out"


@dataclass(frozen=True)
class StepDecision:
    """One denoising step: the width it ran at and why.

    Attributes:
        step: counted from 0.
        bits: activation width of every quantized layer in this step.
        accumulated: the sum of distances since the last reset that decided it; None if nothing was summed.
        reason: in words.
        distance: ``d_i = ‖F_i - F_{i-1}‖₁ / ‖F_{i-1}‖₁`` measured after it, from the last output that was computed;
            None after the first step and after a skipped one.
        skipped: a cache took the place of its blocks, so nothing was multiplied at ``bits``.
    """

    step: int
    bits: int
    accumulated: float | None
    reason: str
    distance: float | None = None
    skipped: bool = False


class DeltaGuided:
    """δ-guided switching: low while the sum of distances since the last reset is below δ, else high and reset.

    Only what is observed changes it: a step that is decided and then skipped leaves the sum, and resets nothing.
    """

    def __init__(self, schedule: BitSchedule) -> None:
        assert schedule.delta is not None
        self._schedule, self._delta = schedule, schedule.delta
        self._sum = 0.0
        self._measured, self._reached = False, False

    def observe(self, distance: float) -> None:
        """Add the distance measured after the step that was decided last."""
        self._sum = distance if self._reached else self._sum + distance
        self._measured = True

    def decide(self, step: int) -> StepDecision:
        """The decision for ``step``."""
        total = self._sum
        self._reached = not self._measured or total >= self._delta
        if not self._measured:
            return StepDecision(step, self._schedule.high, None, "no distance yet")
        if self._reached:
            return StepDecision(step, self._schedule.high, total, f"reached δ = {self._delta:g}: reset")
        return StepDecision(step, self._schedule.low, total, f"below δ = {self._delta:g}")


class Planned:
    """A schedule that is known before the first step: constant, STP, ITP, ABS or SBA."""

    def __init__(self, schedule: BitSchedule, num_steps: int | None) -> None:
        self._schedule = schedule
        self._bits: list[int] = []
        if schedule.kind != "constant":
            if num_steps is None:
                raise DvdqError("bit schedule", where=schedule.kind, expected=NUM_STEPS, got=None)
            self._bits = _PLANS[schedule.kind](schedule, num_steps)

    def observe(self, distance: float) -> None:
        """Distances change nothing."""

    def decide(self, step: int) -> StepDecision:
        """The decision for ``step``."""
        kind = self._schedule.kind
        if kind == "constant":
            return StepDecision(step, self._schedule.high, None, kind)
        if step >= len(self._bits):
            raise DvdqError("bit schedule", where=kind, expected=f"{len(self._bits)} steps", got=step + 1)
        return StepDecision(step, self._bits[step], None, kind)


def decider(schedule: BitSchedule, num_steps: int | None = None) -> DeltaGuided | Planned:
    """A fresh decider for one video of ``num_steps`` steps; only STP, ITP, ABS and SBA need their number."""
    return DeltaGuided(schedule) if schedule.kind == "delta" else Planned(schedule, num_steps)


def _stp(schedule: BitSchedule, num_steps: int) -> list[int]:
    few = num_steps // 2
    return [schedule.low] * few + [schedule.high] * (num_steps - few)


def _itp(schedule: BitSchedule, num_steps: int) -> list[int]:
    return _stp(schedule, num_steps)[::-1]


def _abs(schedule: BitSchedule, num_steps: int) -> list[int]:
    return [schedule.low if step % 2 else schedule.high for step in range(num_steps)]


def _sba(schedule: BitSchedule, num_steps: int) -> list[int]:
    bits = _stp(schedule, num_steps)
    return [bits[step] for step in np.random.default_rng(schedule.seed).permutation(num_steps)]


_PLANS: dict[str, Callable[[BitSchedule, int], list[int]]] = {"stp": _stp, "itp": _itp, "abs": _abs, "sba": _sba}


def average_bits(trace: Sequence[StepDecision]) -> float:
    """Mean activation width over the steps of a trace that ran: a skipped step multiplied nothing."""
    widths = [decision.bits for decision in trace if not decision.skipped]
    if not widths:
        raise DvdqError("average_bits", expected="a trace of at least one step that ran", got="none")
    return sum(widths) / len(widths)


def choose_delta(distances: Sequence[float], wanted_average: float, low: int = 4, high: int = 8) -> float:
    """The δ whose schedule has the average width nearest to ``wanted_average`` on recorded distances ``d_1 … d_{n-1}``.

    The average falls as δ grows and changes only where δ passes the sum of a run of consecutive distances, so the
    middles between neighbouring sums are searched by bisection: a middle, because the next video differs a little.
    """
    return choose_common_delta([distances], wanted_average, low, high)


def choose_common_delta(videos: Sequence[Sequence[float]], wanted_average: float, low: int = 4, high: int = 8) -> float:
    """As :func:`choose_delta`, one δ for the steps of several videos, given the distances of each.

    Raises:
        DvdqError: an average that no schedule has, no video, or one of fewer than three steps.
    """
    if not low <= wanted_average <= high:
        raise DvdqError("choose_delta", where="wanted_average", expected=f"{low} to {high}", got=wanted_average)
    shortest = min(map(len, videos), default=0)
    if shortest < FIRST_HIGH:
        raise DvdqError("choose_delta", expected=f"at least {FIRST_HIGH} distances", got=shortest)
    deciding = [list(distances[: len(distances) + 1 - FIRST_HIGH]) for distances in videos]
    runs = {total for video in deciding for start in range(len(video)) for total in accumulate(video[start:])}
    sums = sorted({0.0, *filter(isfinite, runs)})
    deltas = [0.0, *((a + b) / 2 for a, b in pairwise(sums)), 2.0 * sums[-1] + 1.0]

    def average(delta: float) -> float:
        bits: list[int] = []
        for distances in videos:
            switch = DeltaGuided(BitSchedule("delta", low=low, high=high, delta=delta))
            bits.append(switch.decide(0).bits)
            for step, distance in enumerate(distances, start=1):
                bits.append(switch.decide(step).bits)
                switch.observe(distance)
        return sum(bits) / len(bits)

    at = bisect_left(deltas, -wanted_average, key=lambda delta: -average(delta))
    return min(deltas[max(at - 1, 0) : at + 1], key=lambda delta: abs(average(delta) - wanted_average))
