"""Means over videos with what they are uncertain by, and whether two methods differ by more than that.

Videos are the sample: a figure says what other prompts and other noise would give, not how exactly one video was
measured. Two methods over the same videos are compared by :func:`difference`: what a prompt does to both cancels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap

from dvdq_reference.spec.errors import DvdqError

CONFIDENCE = 0.95
RESAMPLES = 9999

Values = Sequence[float] | NDArray[np.floating]
"""One number a video."""


@dataclass(frozen=True)
class Interval:
    """The mean of ``count`` videos, and the 95 % bootstrap interval from ``low`` to ``high`` around it."""

    mean: float
    low: float
    high: float
    count: int


def interval(values: Values, *, seed: int = 0) -> Interval:
    """The mean and its 95 % interval by SciPy's BCa bootstrap (Efron 1987) over 9999 resamples drawn by ``seed``.

    BCa corrects the interval for bias and skewness. Values that do not differ, up to rounding, leave the correction
    undefined: then it is the plain percentile interval, which for equal values has no width.

    A bootstrap of few videos is too narrow: of ten it covers the truth in about 90 % of cases. ``count`` is there to
    be read.

    Raises:
        DvdqError: no row of at least two finite numbers. The PSNR of a video equal to its reference is infinite and
            has no place in a mean: to leave it out or to take another metric is the caller's decision.
    """
    sample = _checked("interval", "values", values)
    low, high = _bootstrap(sample, "BCa", seed)
    if not np.isfinite([low, high]).all():
        low, high = _bootstrap(sample, "percentile", seed)
    return Interval(float(sample.mean()), low, high, len(sample))


def difference(values: Values, baseline: Values, *, seed: int = 0) -> Interval:
    """:func:`interval` of ``values[i] - baseline[i]``, two methods' numbers of the same videos in the same order.

    Raises:
        DvdqError: as :func:`interval` does, or if the two are not of one length.
    """
    sample, other = _checked("difference", "values", values), _checked("difference", "baseline", baseline)
    if len(sample) != len(other):
        raise DvdqError("difference", expected=f"values of {len(other)} videos, as the baseline", got=len(sample))
    return interval(sample - other, seed=seed)


def is_apart(paired: Interval) -> bool:
    """Whether a :func:`difference` is more than chance: its interval does not contain 0."""
    return paired.low > 0.0 or paired.high < 0.0


def _bootstrap(sample: NDArray[np.float64], method: str, seed: int) -> tuple[float, float]:
    # Where BCa is undefined SciPy divides zero by zero, says so, and gives NaN.
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (sample,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def _checked(operation: str, name: str, values: Values) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise DvdqError(operation, where=name, expected="two numbers or more in a row", got=f"shape {sample.shape}")
    odd = np.flatnonzero(~np.isfinite(sample))
    if len(odd):
        raise DvdqError(operation, where=f"{name}[{odd[0]}]", expected="finite numbers", got=sample[odd[0]])
    return sample
