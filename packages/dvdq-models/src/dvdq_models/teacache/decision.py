"""The rule of TeaCache for one pass of the transformer: numbers in, one decision a step out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dvdq_models.teacache.coefficients import Coefficients


@dataclass(frozen=True)
class CacheDecision:
    """One pass of one denoising step: computed or reused, and why.

    Attributes:
        step: counted from 0.
        name: of the pass, "cond" or "uncond".
        reused: whether the blocks were skipped and their last residual added instead.
        distance: relative L1 change of the signal since the step before; None if there was none.
        accumulated: the sum of expected changes since the last computed step that decided; None if nothing was decided.
        reason: in words.
    """

    step: int
    name: str
    reused: bool
    distance: float | None
    accumulated: float | None
    reason: str


class Accumulator:
    """Reuse while the sum of expected changes since the last computed step stays below the threshold.

    The first ``warm_up`` steps and the last are computed. A threshold of 0 therefore computes all.
    """

    def __init__(self, threshold: float, coefficients: Coefficients) -> None:
        self._threshold, self._coefficients = threshold, coefficients
        self._seen, self._sum = 0, 0.0

    def decide(self, step: int, name: str, distance: float | None, *, last: bool) -> CacheDecision:
        """The decision for ``step``, ``distance`` after the one before."""
        self._seen += 1
        forced = None
        if distance is None:
            forced = "first step"
        elif self._seen <= self._coefficients.warm_up:
            forced = f"one of the first {self._coefficients.warm_up}"
        elif last:
            forced = "last step"
        if forced is not None:
            self._sum = 0.0
            return CacheDecision(step, name, False, distance, None, forced)
        assert distance is not None
        expected = self._coefficients.expected_change(distance) if math.isfinite(distance) else math.inf
        total = self._sum + expected
        if total < self._threshold:
            self._sum = total
            return CacheDecision(step, name, True, distance, total, f"below {self._threshold:g}")
        self._sum = 0.0
        return CacheDecision(step, name, False, distance, total, f"reached {self._threshold:g}: reset")
