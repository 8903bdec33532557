"""Laws of the schedules (Eq. 11, Sec. 4.3)."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dvdq_reference.oracle.bit_switching import choose_delta, delta_guided, finishes, relative_change, schedule_bits
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BitSchedule

STEPS = st.integers(1, 60)
DISTANCES = st.lists(st.floats(0.0, 10.0), min_size=2, max_size=30)
RIVALS = st.sampled_from(["stp", "itp", "abs", "sba"])
ENDS = st.integers(0, 5)


def delta(value, low=4, high=8, **ends):
    return BitSchedule("delta", low=low, high=high, delta=value, **ends)


def test_delta_by_hand():
    # The sum after step 1 is 0.25: low; after step 2 0.5: high and reset; then 0.25, low; the last decides nothing.
    assert delta_guided([0.25, 0.25, 0.25, 9.0], delta(0.5)) == [8, 8, 4, 8, 4]


def test_the_sum_starts_again_from_zero_after_a_reset():
    # 0.9 is carried over nothing: 0.9 is high, then 0.4 low, 0.8 high again.
    assert delta_guided([0.9, 0.4, 0.4, 0.4, 0.0], delta(0.5)) == [8, 8, 8, 4, 8, 4]


def test_a_skipped_step_leaves_the_sum_as_it_is():
    assert delta_guided([0.25, None, 0.25, 0.0], delta(0.5)) == [8, 8, 4, 4, 8]


def test_a_skipped_step_does_not_reset():
    # Step 2 would run high; step 3 runs in its place and resets.
    assert delta_guided([0.6, None, 0.1, 0.1], delta(0.5)) == [8, 8, 8, 8, 4]


def test_steps_run_high_until_a_distance_exists():
    assert delta_guided([None, None, 0.1, 0.1], delta(0.5)) == [8, 8, 8, 8, 4]


@pytest.mark.parametrize(("count", "expected"), [(0, [8]), (1, [8, 8]), (2, [8, 8, 4])])
def test_the_first_two_steps_are_high(count, expected):
    assert delta_guided([0.0] * count, delta(1.0)) == expected


@given(DISTANCES)
def test_the_ends_of_delta(distances):
    n = len(distances) + 1
    assert delta_guided(distances, delta(0.0)) == [8] * n
    assert delta_guided(distances, delta(sum(distances) + 1)) == [8, 8] + [4] * (n - 2)


@given(DISTANCES, st.floats(0.0, 20.0), st.floats(0.0, 20.0))
def test_a_larger_delta_never_takes_more_bits(distances, one, other):
    small, large = sorted((one, other))
    assert sum(delta_guided(distances, delta(large))) <= sum(delta_guided(distances, delta(small)))


@given(RIVALS, STEPS, st.integers(0, 99))
def test_the_rivals_give_half_the_steps_to_each_width(kind, num_steps, seed):
    bits = schedule_bits(BitSchedule(kind, low=4, high=8, seed=seed), num_steps)
    assert len(bits) == num_steps
    assert bits.count(4) == num_steps // 2
    assert bits.count(8) == num_steps - num_steps // 2
    if num_steps % 2 == 0:
        assert sum(bits) / num_steps == 6.0


@given(STEPS)
def test_constant_is_high_and_low_is_low(num_steps):
    assert schedule_bits(BitSchedule("constant", low=4, high=8), num_steps) == [8] * num_steps
    assert schedule_bits(BitSchedule("low", low=4, high=8), num_steps) == [4] * num_steps


@given(st.sampled_from(["constant", "low", "stp", "itp", "abs", "sba"]), STEPS, ENDS, ENDS)
def test_the_ends_of_a_plan_run_high_and_the_rest_as_it_says(kind, num_steps, first, last):
    plan = schedule_bits(BitSchedule(kind), num_steps)
    bits = schedule_bits(BitSchedule(kind, first_high=first, last_high=last), num_steps)
    ends = {*range(first), *range(num_steps - last, num_steps)}
    assert bits == [8 if step in ends else plan[step] for step in range(num_steps)]


@given(DISTANCES, st.floats(0.0, 20.0), st.integers(2, 6), ENDS)
def test_under_delta_the_ends_change_what_follows_as_a_reset_does(distances, value, first, last):
    n = len(distances) + 1
    bits = delta_guided(distances, delta(value, first_high=first, last_high=last))
    # After the last of the first steps the trace goes on as if it had begun one step before that one.
    between = delta_guided(distances[first - 2 :], delta(value))[2:]
    assert bits == [*[8] * min(first, n), *between[: max(n - last - first, 0)], *[8] * min(last, max(n - first, 0))]


def test_first_steps_that_run_high_reset_the_sum():
    # Without the reset of step 2 the sum would be 0.6 at step 3, which would run high, and 4 would not.
    assert delta_guided([0.3] * 5, delta(0.5, first_high=3)) == [8, 8, 8, 4, 8, 4]
    # A first step that a cache skipped resets nothing.
    assert delta_guided([0.3, None, 0.3, 0.3], delta(0.5, first_high=3)) == [8, 8, 8, 4, 8]


def test_steps_that_finish_by_hand():
    schedule = BitSchedule("low", last_high=2)
    assert schedule_bits(schedule, 5) == [4, 4, 4, 8, 8]
    assert [finishes(step, 5, schedule) for step in range(5)] == [False, False, False, True, True]
    assert not finishes(4, 5, BitSchedule("low", first_high=5))


def test_the_rivals_by_hand():
    bits = {kind: schedule_bits(BitSchedule(kind, low=4, high=8), 5) for kind in ("stp", "itp", "abs")}
    assert bits == {"stp": [4, 4, 8, 8, 8], "itp": [8, 8, 8, 4, 4], "abs": [8, 4, 8, 4, 8]}


def test_sba_is_drawn_from_its_seed():
    draws = [schedule_bits(BitSchedule("sba", low=4, high=8, seed=seed), 50) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@example([0.0, 5e-324, 0.0], 7.0, 0, 0)
@given(DISTANCES, st.floats(4.0, 8.0), ENDS, ENDS)
def test_no_delta_comes_nearer_to_the_wanted_average(distances, wanted, first, last):
    ends = {"first_high": first, "last_high": last}

    def miss(value):
        bits = delta_guided(distances, delta(value, **ends))
        return abs(sum(bits) / len(bits) - wanted)

    chosen = miss(choose_delta(distances, wanted, **ends))
    runs = [sum(distances[i:j]) for i in range(len(distances)) for j in range(i, len(distances) + 1)]
    candidates = runs + [np.nextafter(run, np.inf) for run in runs] + [1e6]
    assert chosen <= min(miss(value) for value in candidates)


def test_half_the_bits_of_a_smooth_trace():
    distances = [0.1 + 0.05 * np.cos(step / 8) for step in range(49)]
    chosen = choose_delta(distances, 6.0)
    assert np.mean(delta_guided(distances, delta(chosen))) == pytest.approx(6.0, abs=4 / 50)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_relative_change_does_not_depend_on_scale(seed, factor):
    a, b = np.random.default_rng(seed).normal(size=(2, 3, 4))
    # Two sums of twelve terms, and the scaling of each term.
    tolerance = 4 * (12 + 3) * 2.0**-53
    assert relative_change(factor * a, factor * b) == pytest.approx(relative_change(a, b), rel=tolerance)
    assert relative_change(a, a) == 0.0


def test_the_relative_change_by_hand():
    assert relative_change([[3.0, -1.0]], [[1.0, 1.0]]) == 2.0
    assert relative_change([0.0], [0.0]) == 0.0
    assert relative_change([1.0], [0.0]) == float("inf")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relative_change([1.0], [1.0, 2.0]), "relative_change: expected two non-empty"),
        (lambda: relative_change([float("nan")], [1.0]), "relative_change: expected finite"),
        (lambda: relative_change([], []), "relative_change: expected two non-empty"),
        (lambda: delta_guided([0.1, -0.1], delta(1.0)), "delta_guided: step 2: expected a distance >= 0, got -0.1"),
        (lambda: delta_guided([float("nan")], delta(1.0)), "delta_guided: step 1"),
        (lambda: delta_guided([0.1], BitSchedule("stp")), "schedule.delta: expected a number >= 0, got None"),
        (lambda: schedule_bits(delta(1.0), 5), "schedule_bits: distances: expected 4, got none"),
        (lambda: schedule_bits(delta(1.0), 5, [0.1]), "schedule_bits: distances: expected 4, got 1"),
        (lambda: schedule_bits(BitSchedule("stp"), 5, [0.1]), "expected none for stp, got 1"),
        (lambda: schedule_bits(BitSchedule("stp"), 0), "num_steps: expected at least 1, got 0"),
        (lambda: choose_delta([0.1, 0.1], 9.0), "wanted_average: expected 4 to 8, got 9.0"),
        (lambda: choose_delta([0.1], 6.0), "choose_delta: expected at least 2 distances, got 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(DvdqError, match=message):
        call()
