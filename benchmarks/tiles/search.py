"""A search for the fastest of many configurations, by steps to neighbours, which are timed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

EXCHANGED = (("block_m", "block_n", "block_k", "stages"), ("warps_m", "warps_n"))
"""Axes of which one goes up while another goes down: together they fill shared memory, or a block with threads."""


def neighbours(config: Config, space: Mapping[str, Sequence[int]]) -> Iterator[Config]:
    """One step along an axis of ``space``, or one up along an axis and one down along another."""

    def step(from_: Config, axis: str, by: int) -> Config | None:
        values = space[axis]
        value = getattr(from_, axis)
        # A value that is none of the space's lies between two of them.
        at = (values.index(value) if value in values else sum(v < value for v in values) - (by > 0)) + by
        return replace(from_, **{axis: values[at]}) if 0 <= at < len(values) else None

    for axis in space:
        for by in (1, -1):
            if (found := step(config, axis, by)) is not None:
                yield found
    for axes in EXCHANGED:
        for up, down in permutations([axis for axis in axes if axis in space], 2):
            if (half := step(config, up, 1)) is not None and (found := step(half, down, -1)) is not None:
                yield found


def descend(
    starts: Sequence[Config],
    around: Callable[[Config], Sequence[Config]],
    time_all: Callable[[Sequence[Config]], Mapping[Config, float]],
    is_over: Callable[[], bool],
) -> dict[Config, float]:
    """The seconds of every configuration that was tried: from the fastest on, until nothing ``around`` it is faster."""
    times = dict(time_all(list(dict.fromkeys(starts))))
    while not is_over():
        best = fastest(times)
        new = [config for config in dict.fromkeys(around(best)) if config not in times]
        times |= time_all(new)
        if fastest(times) == best:
            break
    return times


def fastest(times: Mapping[Config, float]) -> Config:
    """The first of those that took the least time."""
    return min(times, key=lambda config: times[config])
