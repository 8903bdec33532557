"""Bootstrap intervals: how often they hold the truth, how they move with the values, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm, skewnorm, t

from dvdq_eval.intervals import RESAMPLES, Interval, difference, interval, is_apart
from dvdq_reference.spec.errors import DvdqError

VIDEOS, TRIALS, TRUTH, CONFIDENCE = 32, 200, 3.0, 0.95
CHANCE = 1e-4
"""That a correct interval fails one of these tests with another seed."""
Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


@pytest.fixture(scope="module")
def intervals() -> list[Interval]:
    rng = np.random.default_rng(0)
    return [interval(rng.normal(TRUTH, 2.0, VIDEOS), seed=trial) for trial in range(TRIALS)]


def test_it_holds_the_truth_as_often_as_a_bootstrap_does(intervals: list[Interval]) -> None:
    # A bootstrap's interval is z standard deviations of the sample wide, where Student's t would be exact.
    coverage = 2 * t.cdf(Z * math.sqrt((VIDEOS - 1) / VIDEOS), VIDEOS - 1) - 1
    held = sum(found.low <= TRUTH <= found.high for found in intervals)
    assert binom.ppf(CHANCE / 2, TRIALS, coverage) <= held <= binom.ppf(1 - CHANCE / 2, TRIALS, coverage)


def test_it_is_as_wide_as_the_normal_law_says(intervals: list[Interval]) -> None:
    # E of a sample's deviation sqrt(sum (x - mean)^2 / n): the mean of the chi law, 1 - 3 / 4n to first order.
    deviation = 2.0 * math.sqrt(2 / VIDEOS) * math.exp(math.lgamma(VIDEOS / 2) - math.lgamma((VIDEOS - 1) / 2))
    width = np.mean([found.high - found.low for found in intervals])
    # A sample's deviation spreads by 1 / sqrt(2n) of itself, and an end of the interval, the quantile p of B resampled
    # means, by sqrt(p (1 - p) / B) over the density there: together, over the trials, as often off as CHANCE.
    p = (1 - CONFIDENCE) / 2
    end = math.sqrt(2 * p * (1 - p) / RESAMPLES) / norm.pdf(Z) / (2 * Z)
    spread = math.hypot(1 / math.sqrt(2 * VIDEOS), end) / math.sqrt(TRIALS)
    assert width / (2 * Z * deviation / math.sqrt(VIDEOS)) == pytest.approx(1.0, abs=norm.isf(CHANCE / 2) * spread)


def test_a_skewed_sample_has_a_skewed_interval() -> None:
    """BCa, not the percentiles: it reaches further to the side of the tail than the resampled means do."""
    sample = skewnorm.rvs(20.0, size=VIDEOS, random_state=np.random.default_rng(0))
    found, mirrored = interval(sample), interval(-sample)
    assert found.high - found.mean > found.mean - found.low
    assert mirrored.mean - mirrored.low > mirrored.high - mirrored.mean
    rng = np.random.default_rng(0)
    means = rng.choice(sample, (RESAMPLES, VIDEOS)).mean(axis=1)
    percentile = np.percentile(means, [50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE])
    assert found.low > percentile[0]
    assert found.high > percentile[1]


def test_it_moves_and_grows_with_the_values() -> None:
    # Eighths, of which sums are exact: the same resamples are below their mean whatever is added.
    sample = np.random.default_rng(0).integers(0, 64, VIDEOS) / 8.0
    found, larger, moved = interval(sample), interval(4.0 * sample), interval(sample + 3.0)
    assert larger == Interval(4.0 * found.mean, 4.0 * found.low, 4.0 * found.high, VIDEOS)
    assert moved.mean == found.mean + 3.0
    # The skewness is rounded n times; the ends lie at ranks that it shifts, a rank being one of the resampled means.
    tolerance = VIDEOS * RESAMPLES * float(np.finfo(np.float64).eps) * float(moved.high)
    assert (moved.low, moved.high) == pytest.approx((found.low + 3.0, found.high + 3.0), abs=tolerance)


def test_the_seed_is_all_the_chance() -> None:
    sample = np.random.default_rng(0).standard_normal(VIDEOS)
    assert interval(sample) == interval(list(sample), seed=0)
    assert interval(sample) != interval(sample, seed=1)
    assert interval(sample).count == VIDEOS


def test_the_mean_lies_inside() -> None:
    sample = np.random.default_rng(0).standard_normal(VIDEOS)
    found = interval(sample)
    assert found.mean == sample.mean()
    assert sample.min() < found.low < found.mean < found.high < sample.max()


@pytest.mark.parametrize("value", [0.0, 0.1, -35.7])
def test_equal_values_have_an_interval_without_width(value: float) -> None:
    found = interval([value] * 7)
    assert found.low == found.mean == found.high
    # A mean of n equal numbers is off by at most n roundings.
    assert found.mean == pytest.approx(value, rel=7 * float(np.finfo(np.float64).eps))


def test_values_that_differ_by_rounding_alone_have_an_interval_too() -> None:
    found = interval([1.0] * 99 + [1.0 + float(np.finfo(np.float64).eps)])
    assert 1.0 <= found.low <= found.high <= 1.0 + np.finfo(np.float64).eps


@pytest.mark.parametrize("values", [[], [1.0], 1.0, [[1.0, 2.0], [3.0, 4.0]]])
def test_one_video_has_no_interval(values: list[float]) -> None:
    with pytest.raises(DvdqError, match="interval: values: expected two numbers or more"):
        interval(values)


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_named(odd: float) -> None:
    with pytest.raises(DvdqError, match=r"interval: values\[2\]: expected finite numbers"):
        interval([30.0, 31.0, odd, odd])
    with pytest.raises(DvdqError, match=r"difference: baseline\[0\]"):
        difference([30.0, 31.0], [odd, 31.0])


def test_a_difference_is_of_pairs() -> None:
    rng = np.random.default_rng(0)
    # What a prompt does to both methods is a hundred times what the methods differ by.
    prompts, gain = rng.normal(0.0, 100.0, VIDEOS), rng.normal(1.0, 0.1, VIDEOS)
    found = difference(prompts + gain, prompts)
    assert found == interval(prompts + gain - prompts)
    assert is_apart(found)
    # Side by side, nobody could tell: each alone holds the other's mean.
    alone, other = interval(prompts + gain), interval(prompts)
    assert alone.low < other.mean < alone.high
    with pytest.raises(DvdqError, match=f"values of {VIDEOS} videos"):
        difference(prompts[1:], prompts)


def test_a_method_does_not_win_over_itself() -> None:
    sample = np.random.default_rng(0).standard_normal(VIDEOS)
    found = difference(sample, sample)
    assert found == Interval(0.0, 0.0, 0.0, VIDEOS)
    assert not is_apart(found)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 2.0, True), (-2.0, -0.1, True), (-1.0, 1.0, False), (0.0, 1.0, False), (-1.0, 0.0, False)],
)
def test_a_difference_is_an_interval_beside_zero(low: float, high: float, expected: bool) -> None:
    found = Interval((low + high) / 2, low, high, VIDEOS)
    assert is_apart(found) == expected
