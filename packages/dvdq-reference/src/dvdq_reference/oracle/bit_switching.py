"""Which activation width each denoising step uses (Eq. 11), and the schedules it is compared with (Sec. 4.3).

Steps are counted from 0. After step i, ``d_i = ‖F_i - F_{i-1}‖₁ / ‖F_{i-1}‖₁`` on the transformer's output F, so a
trace of n steps has the n - 1 distances ``d_1 … d_{n-1}``. A step that a cache skipped has None: it computed no output,
so it leaves the sum as it is, resets nothing, and the next distance is from the last output that was computed.

The rivals give half the steps to each width; of an odd number, one more to the high width.

The first and last steps of a schedule, as many as it says, run high whatever its kind says. Under δ such a step is a
high step like any other: the sum returns to 0, and its own change counts towards the next decision.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import inf, nextafter

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.spec.bits import check_bits
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BitSchedule

FIRST_HIGH = 2
"""Steps 0 and 1 run high, because no distance exists before them (our choice; the paper shows its early steps high)."""


def relative_change(current: ArrayLike, previous: ArrayLike) -> float:
    """``‖F_i - F_{i-1}‖₁ / ‖F_{i-1}‖₁`` of two outputs of one shape.

    If ``F_{i-1}`` is zero it is 0 for no change, else infinity, which switches to the high width.

    Raises:
        DvdqError: for outputs of different shapes, empty ones, NaN or Inf.
    """
    current, previous = np.asarray(current, np.float64), np.asarray(previous, np.float64)
    if current.shape != previous.shape or current.size == 0:
        got = f"{current.shape} and {previous.shape}"
        raise DvdqError("relative_change", expected="two non-empty outputs of one shape", got=got)
    if not (np.isfinite(current).all() and np.isfinite(previous).all()):
        raise DvdqError("relative_change", expected="finite outputs", got="NaN or Inf")
    change, size = float(np.abs(current - previous).sum()), float(np.abs(previous).sum())
    if size == 0.0:
        return 0.0 if change == 0.0 else float("inf")
    return change / size


def delta_guided(distances: Sequence[float | None], schedule: BitSchedule) -> list[int]:
    """Eq. 11: the sum of distances since the last reset decides the next step.

    Below δ it runs at ``low``; at δ or above, or where :func:`runs_high` says so, at ``high``, and the sum returns to
    0. The distance after the last step decides nothing.

    Args:
        distances: ``d_1 … d_{n-1}``, for n steps; None for a step that a cache skipped, whose width is what it would
            have run at.
        schedule: low, high, δ, and how many first and last steps run high.

    Raises:
        DvdqError: for a distance that is negative or NaN (naming the step), or a schedule without δ.
    """
    if schedule.delta is None:
        raise DvdqError("delta_guided", where="schedule.delta", expected="a number >= 0", got=None)
    _check_distances("delta_guided", distances)
    bits = [schedule.high]
    total, measured = 0.0, False
    for step, distance in enumerate(distances, start=1):
        forced = runs_high(step, len(distances) + 1, schedule)
        reached = forced or not measured or total >= schedule.delta
        bits.append(schedule.high if reached else schedule.low)
        if distance is not None:
            total = distance if reached else total + distance
            measured = True
    return bits


def runs_high(step: int, num_steps: int, schedule: BitSchedule) -> bool:
    """Whether ``step`` is one of the first or last that run high whatever the kind of ``schedule`` says."""
    return step < schedule.first_high or finishes(step, num_steps, schedule)


def finishes(step: int, num_steps: int, schedule: BitSchedule) -> bool:
    """Whether ``step`` is one of the last ``last_high``, which nothing that comes later corrects."""
    return step >= num_steps - schedule.last_high


def constant(num_steps: int, schedule: BitSchedule) -> list[int]:
    """``high`` at every step."""
    return [schedule.high] * num_steps


def low(num_steps: int, schedule: BitSchedule) -> list[int]:
    """``low`` at every step."""
    return [schedule.low] * num_steps


def stp(num_steps: int, schedule: BitSchedule) -> list[int]:
    """Static temporal partitioning: the first half low, the second high."""
    few = num_steps // 2
    return [schedule.low] * few + [schedule.high] * (num_steps - few)


def itp(num_steps: int, schedule: BitSchedule) -> list[int]:
    """Inverse temporal partitioning: the first half high, the second low."""
    return stp(num_steps, schedule)[::-1]


def abs_(num_steps: int, schedule: BitSchedule) -> list[int]:
    """Alternating bit switching: high, low, high, …"""
    return [schedule.low if step % 2 else schedule.high for step in range(num_steps)]


def sba(num_steps: int, schedule: BitSchedule) -> list[int]:
    """Stochastic bit allocation: :func:`stp` in the order ``numpy.random.default_rng(seed).permutation(num_steps)``."""
    bits = stp(num_steps, schedule)
    return [bits[step] for step in np.random.default_rng(schedule.seed).permutation(num_steps)]


def schedule_bits(schedule: BitSchedule, num_steps: int, distances: Sequence[float | None] | None = None) -> list[int]:
    """The width of each of ``num_steps`` steps.

    Args:
        schedule: which of the schedules, with its widths, δ and seed, and how many first and last steps run high.
        num_steps: n ≥ 1.
        distances: ``d_1 … d_{n-1}``, for ``delta`` only, as in :func:`delta_guided`.

    Raises:
        DvdqError: for no steps, or distances that are missing, unwanted, too few or too many.
    """
    if num_steps < 1:
        raise DvdqError("schedule_bits", where="num_steps", expected="at least 1", got=num_steps)
    if schedule.kind == "delta":
        if distances is None or len(distances) != num_steps - 1:
            got = "none" if distances is None else len(distances)
            raise DvdqError("schedule_bits", where="distances", expected=num_steps - 1, got=got)
        return delta_guided(distances, schedule)
    if distances is not None:
        raise DvdqError("schedule_bits", where="distances", expected=f"none for {schedule.kind}", got=len(distances))
    fixed = {"constant": constant, "low": low, "stp": stp, "itp": itp, "abs": abs_, "sba": sba}
    planned = fixed[schedule.kind](num_steps, schedule)
    return [schedule.high if runs_high(i, num_steps, schedule) else bits for i, bits in enumerate(planned)]


def choose_delta(
    distances: Sequence[float],
    wanted_average: float,
    low: int = 4,
    high: int = 8,
    *,
    first_high: int = 0,
    last_high: int = 0,
) -> float:
    """The δ whose schedule of a recorded trace has the average width nearest to ``wanted_average``, high if two tie.

    The schedule changes only where δ passes the sum of some run of consecutive distances, and a larger δ never makes
    the average larger; so the middles between neighbouring sums are all there is to try, by bisection. A middle, not an
    edge, because the next trace will differ a little, not least since its widths do.

    Raises:
        DvdqError: for a bad distance, an average outside ``low … high``, or a trace of fewer than 3 steps.
    """
    _check_distances("choose_delta", distances)
    check_bits("choose_delta", low)
    check_bits("choose_delta", high)
    if not low <= wanted_average <= high:
        raise DvdqError("choose_delta", where="wanted_average", expected=f"{low} to {high}", got=wanted_average)
    # The sum that decides step i ends at d_{i-1}, and begins at that of the last step which is sure to run high.
    deciding = distances[max(first_high, FIRST_HIGH) - FIRST_HIGH : max(len(distances) - 1 - last_high, 0)]
    if len(distances) < FIRST_HIGH:
        raise DvdqError("choose_delta", expected=f"at least {FIRST_HIGH} distances", got=len(distances))
    sums = {0.0}
    for start in range(len(deciding)):
        total = 0.0
        for distance in deciding[start:]:
            total += distance
            sums.add(total)
    finite = sorted(total for total in sums if total < float("inf"))
    # Above a, also where no number lies between: δ = a would be reached by a itself.
    middles = [max(nextafter(a, inf), (a + b) / 2) for a, b in pairwise(finite)]
    deltas = [0.0, *middles, 2 * finite[-1] + 1]

    def average(delta: float) -> float:
        schedule = BitSchedule("delta", low=low, high=high, delta=delta, first_high=first_high, last_high=last_high)
        bits = delta_guided(distances, schedule)
        return sum(bits) / len(bits)

    at = bisect_left(deltas, -wanted_average, key=lambda delta: -average(delta))
    near = deltas[max(at - 1, 0) : at + 1]
    return min(near, key=lambda delta: abs(average(delta) - wanted_average))


def _check_distances(operation: str, distances: Sequence[float | None]) -> None:
    for step, distance in enumerate(distances, start=1):
        if distance is not None and not distance >= 0:
            raise DvdqError(operation, where=f"step {step}", expected="a distance >= 0", got=distance)
