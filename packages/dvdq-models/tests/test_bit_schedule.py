"""The deciders against the oracle's schedules, for any trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dvdq_models import DvdqError
from dvdq_models.switching.schedule import StepDecision, average_bits, choose_common_delta, choose_delta, decider
from dvdq_reference.oracle import bit_switching as oracle
from dvdq_reference.spec.recipe import BitSchedule

DISTANCES = st.lists(st.floats(0.0, 2.0, allow_nan=False), min_size=2, max_size=60)
ENDS = st.fixed_dictionaries({"first_high": st.integers(0, 5), "last_high": st.integers(0, 5)})
checked = settings(deadline=None, derandomize=True, max_examples=60)


def _bits(schedule: BitSchedule, distances: list[float]) -> list[int]:
    switch = decider(schedule, len(distances) + 1)
    decisions = []
    for step in range(len(distances) + 1):
        decisions.append(switch.decide(step))
        if step > 0:
            switch.observe(distances[step - 1])
    n = len(distances) + 1
    assert [d.step for d in decisions] == list(range(n))
    assert [d.finishing for d in decisions] == [oracle.finishes(step, n, schedule) for step in range(n)]
    assert average_bits(decisions) == sum(d.bits for d in decisions) / len(decisions)
    return [d.bits for d in decisions]


@checked
@given(DISTANCES, st.floats(0.0, 3.0), ENDS)
def test_delta_guided_is_the_oracles(distances: list[float], delta: float, ends: dict[str, int]) -> None:
    schedule = BitSchedule("delta", delta=delta, **ends)  # type: ignore[arg-type]
    assert _bits(schedule, distances) == oracle.delta_guided(distances, schedule)


@checked
@given(st.lists(st.none() | st.floats(0.0, 2.0), min_size=1, max_size=60), st.floats(0.0, 3.0), ENDS)
def test_skipped_steps_are_the_oracles(distances: list[float | None], delta: float, ends: dict[str, int]) -> None:
    schedule = BitSchedule("delta", delta=delta, **ends)  # type: ignore[arg-type]
    switch = decider(schedule, len(distances) + 1)
    bits = [switch.decide(0).bits]
    for step, distance in enumerate(distances, start=1):
        bits.append(switch.decide(step).bits)
        if distance is not None:
            switch.observe(distance)
    assert bits == oracle.delta_guided(distances, schedule)


def test_the_average_counts_the_steps_that_ran() -> None:
    ran = [StepDecision(0, 8, None, ""), StepDecision(1, 4, None, ""), StepDecision(2, 4, None, "", skipped=True)]
    assert average_bits(ran) == 6.0


@checked
@given(DISTANCES, st.sampled_from(["constant", "low", "stp", "itp", "abs", "sba"]), st.integers(0, 5), ENDS)
def test_planned_schedules_are_the_oracles(distances: list[float], kind: str, seed: int, ends: dict[str, int]) -> None:
    schedule = BitSchedule(kind, seed=seed, **ends)  # type: ignore[arg-type]
    assert _bits(schedule, distances) == oracle.schedule_bits(schedule, len(distances) + 1)


@checked
@given(DISTANCES, st.floats(4.0, 8.0), ENDS)
def test_the_chosen_delta_is_as_near_as_the_oracles(
    distances: list[float], wanted: float, ends: dict[str, int]
) -> None:
    def miss(delta: float) -> float:
        bits = oracle.delta_guided(distances, BitSchedule("delta", delta=delta, **ends))  # type: ignore[arg-type]
        return abs(sum(bits) / len(bits) - wanted)

    assert miss(choose_delta(distances, wanted, **ends)) == miss(oracle.choose_delta(distances, wanted, **ends))


@checked
@example([[0.0, 5e-324, 0.0]], 7.0, {"first_high": 0, "last_high": 0})
@given(st.lists(DISTANCES, min_size=1, max_size=4), st.floats(4.0, 8.0), ENDS)
def test_one_delta_for_several_videos(videos: list[list[float]], wanted: float, ends: dict[str, int]) -> None:
    def miss(delta: float) -> float:
        schedule = BitSchedule("delta", delta=delta, **ends)  # type: ignore[arg-type]
        bits = [b for distances in videos for b in oracle.delta_guided(distances, schedule)]
        return abs(sum(bits) / len(bits) - wanted)

    chosen = miss(choose_common_delta(videos, wanted, **ends))
    runs = {sum(video[i:j]) for video in videos for i in range(len(video)) for j in range(i, len(video) + 1)}
    assert chosen <= min(miss(delta) for run in runs for delta in (run, np.nextafter(run, np.inf)))


def test_a_step_that_a_cache_skipped_does_not_count_towards_the_average() -> None:
    # Of steps 0, 1, 3 and 5 that ran, the first two and the last are sure to run high: δ decides step 3 alone.
    distances = [0.1, None, 0.1, None, 0.1]
    assert choose_delta(distances, 8.0, last_high=1) <= 0.1
    assert choose_delta(distances, 7.0, last_high=1) > 0.1


def test_a_trace_says_why_a_step_runs_high() -> None:
    switch = decider(BitSchedule("low", first_high=1, last_high=2), 5)
    assert [(d.bits, d.reason) for d in map(switch.decide, range(5))] == [
        (8, "the first step"),
        (4, "low"),
        (4, "low"),
        (8, "one of the last 2 steps"),
        (8, "one of the last 2 steps"),
    ]


def test_what_cannot_be_decided_is_an_error() -> None:
    with pytest.raises(DvdqError, match=r"last_high: expected the number of steps, .*follow\(pipeline\).*, got None"):
        decider(BitSchedule("delta", delta=0.1, last_high=1))
    with pytest.raises(DvdqError, match="delta: expected 4 steps, got 5"):
        decider(BitSchedule("delta", delta=0.1, last_high=1), 4).decide(4)
    with pytest.raises(DvdqError, match="stp: expected the number of steps"):
        decider(BitSchedule("stp"))
    with pytest.raises(DvdqError, match="stp: expected 4 steps, got 5"):
        decider(BitSchedule("stp"), 4).decide(4)
    with pytest.raises(DvdqError, match="wanted_average: expected 4 to 8, got 9"):
        choose_delta([0.1, 0.2, 0.3], 9.0)
    with pytest.raises(DvdqError, match="at least 2 distances, got 1"):
        choose_delta([0.1], 6.0)
    with pytest.raises(DvdqError, match="at least 2 distances, got 0"):
        choose_common_delta([], 6.0)
    with pytest.raises(DvdqError, match="at least one step"):
        average_bits([])
