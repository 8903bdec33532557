"""Which activation width comes next: one small decider a schedule (Eq. 11 and Sec. 4.3)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf, isfinite, nextafter

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
        accumulated: the sum of distances since the last reset when it was decided; None if nothing was summed.
        reason: in words.
        distance: ``d_i = ‖F_i - F_{i-1}‖₁ / ‖F_{i-1}‖₁`` measured after it, from the last output that was computed;
            None after the first step and after a skipped one.
        skipped: a cache took the place of its blocks, so nothing was multiplied at ``bits``.
        finishing: one of the last steps, as many as the schedule says, which nothing that comes later corrects.
    """

    step: int
    bits: int
    accumulated: float | None
    reason: str
    distance: float | None = None
    skipped: bool = False
    finishing: bool = False


class Decider(ABC):
    """Decides one step of a video after another; the first and last, as many as the schedule says, run high.

    Args:
        schedule: what decides.
        num_steps: of the video; None where nobody knows.

    Raises:
        DvdqError: no number of steps, for a schedule that needs it: STP, ITP, ABS and SBA, and any with last steps.
    """

    def __init__(self, schedule: BitSchedule, num_steps: int | None) -> None:
        planned = schedule.kind in _PLANS
        if num_steps is None and (planned or schedule.last_high):
            where = schedule.kind if planned else "last_high"
            raise DvdqError("bit schedule", where=where, expected=NUM_STEPS, got=None)
        self._schedule = schedule
        self._num_steps = num_steps if planned or schedule.last_high else None

    def decide(self, step: int) -> StepDecision:
        """The decision for ``step``; one beyond a number of steps that counts is a :class:`DvdqError`."""
        first, last, total = self._schedule.first_high, self._schedule.last_high, self._num_steps
        if total is not None and step >= total:
            raise DvdqError("bit schedule", where=self._schedule.kind, expected=f"{total} steps", got=step + 1)
        finishing = total is not None and step >= total - last
        forced = _one_of("last", last) if finishing else _one_of("first", first) if step < first else None
        return dataclasses.replace(self._decide(step, forced), finishing=finishing)

    @abstractmethod
    def observe(self, distance: float) -> None:
        """Take notice of the distance measured after the step that was decided last."""

    @abstractmethod
    def _decide(self, step: int, forced: str | None) -> StepDecision:
        """The decision for ``step``; ``forced`` is why it runs high whatever the kind of schedule says."""


class DeltaGuided(Decider):
    """δ-guided switching: low while the sum of distances since the last reset is below δ, else high and reset.

    A step that runs high because it is one of the first or last resets the sum like any other that does. Only what is
    observed changes it: a step that is decided and then skipped leaves the sum, and resets nothing.
    """

    def __init__(self, schedule: BitSchedule, num_steps: int | None) -> None:
        super().__init__(schedule, num_steps)
        assert schedule.delta is not None
        self._delta = schedule.delta
        self._sum = 0.0
        self._measured, self._reached = False, False

    def observe(self, distance: float) -> None:
        """Add the distance measured after the step that was decided last."""
        self._sum = distance if self._reached else self._sum + distance
        self._measured = True

    def _decide(self, step: int, forced: str | None) -> StepDecision:
        total = self._sum if self._measured else None
        self._reached = forced is not None or total is None or total >= self._delta
        if not self._reached:
            return StepDecision(step, self._schedule.low, total, f"below δ = {self._delta:g}")
        reason = "no distance yet" if total is None else f"reached δ = {self._delta:g}: reset"
        return StepDecision(step, self._schedule.high, total, forced or reason)


class Planned(Decider):
    """A schedule that is known before the first step: constant, low, STP, ITP, ABS or SBA."""

    def __init__(self, schedule: BitSchedule, num_steps: int | None) -> None:
        super().__init__(schedule, num_steps)
        self._bits: list[int] = []
        if schedule.kind in _PLANS:
            assert num_steps is not None
            self._bits = _PLANS[schedule.kind](schedule, num_steps)

    def observe(self, distance: float) -> None:
        """Distances change nothing."""

    def _decide(self, step: int, forced: str | None) -> StepDecision:
        low, high, kind = self._schedule.low, self._schedule.high, self._schedule.kind
        planned = self._bits[step] if self._bits else low if kind == "low" else high
        return StepDecision(step, planned if forced is None else high, None, forced or kind)


def decider(schedule: BitSchedule, num_steps: int | None = None) -> Decider:
    """A fresh decider for one video of ``num_steps`` steps, which not every schedule needs to know."""
    return DeltaGuided(schedule, num_steps) if schedule.kind == "delta" else Planned(schedule, num_steps)


def _one_of(end: str, count: int) -> str:
    return f"the {end} step" if count == 1 else f"one of the {end} {count} steps"


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


def choose_delta(
    distances: Sequence[float | None],
    wanted_average: float,
    low: int = 4,
    high: int = 8,
    *,
    first_high: int = 0,
    last_high: int = 0,
) -> float:
    """The δ whose schedule has the average width nearest to ``wanted_average`` on recorded distances ``d_1 … d_{n-1}``.

    The average falls as δ grows and changes only where δ passes the sum of a run of consecutive distances, so the
    middles between neighbouring sums are searched by bisection: a middle, because the next video differs a little.
    A step that a cache skipped has None for its distance, and does not count.
    """
    return choose_common_delta([distances], wanted_average, low, high, first_high=first_high, last_high=last_high)


def choose_common_delta(
    videos: Sequence[Sequence[float | None]],
    wanted_average: float,
    low: int = 4,
    high: int = 8,
    *,
    first_high: int = 0,
    last_high: int = 0,
) -> float:
    """As :func:`choose_delta`, one δ for the steps of several videos, given the distances of each.

    Raises:
        DvdqError: an average that no schedule has, no video, or one of fewer than three steps.
    """
    if not low <= wanted_average <= high:
        raise DvdqError("choose_delta", where="wanted_average", expected=f"{low} to {high}", got=wanted_average)
    shortest = min(map(len, videos), default=0)
    if shortest < FIRST_HIGH:
        raise DvdqError("choose_delta", expected=f"at least {FIRST_HIGH} distances", got=shortest)
    # The sum that decides step i ends at d_{i-1}, and begins at that of the last step which is sure to run high.
    begin = max(first_high, FIRST_HIGH) - FIRST_HIGH
    runs: set[float] = set()
    for distances in videos:
        deciding = [d for d in distances[begin : max(len(distances) - 1 - last_high, 0)] if d is not None]
        runs.update(total for start in range(len(deciding)) for total in accumulate(deciding[start:]))
    sums = sorted({0.0, *filter(isfinite, runs)})
    # Above a, also where no number lies between: δ = a would be reached by a itself.
    middles = [max(nextafter(a, inf), (a + b) / 2) for a, b in pairwise(sums)]
    deltas = [0.0, *middles, 2.0 * sums[-1] + 1.0]

    def average(delta: float) -> float:
        schedule = BitSchedule("delta", low=low, high=high, delta=delta, first_high=first_high, last_high=last_high)
        bits: list[int] = []
        for distances in videos:
            switch = decider(schedule, len(distances) + 1)
            bits.append(switch.decide(0).bits)
            for step, distance in enumerate(distances, start=1):
                decision = switch.decide(step)
                if distance is not None:
                    bits.append(decision.bits)
                    switch.observe(distance)
        return sum(bits) / len(bits)

    at = bisect_left(deltas, -wanted_average, key=lambda delta: -average(delta))
    return min(deltas[max(at - 1, 0) : at + 1], key=lambda delta: abs(average(delta) - wanted_average))
