"""From a pass to a video: the steps that ran at each width, times what a pass at that width takes.

Only the transformer is counted. The text encoder, the autoencoder, the scheduler and the first call's compilation come
on top in a real run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

from dvdq_eval.latency.results import VideoTime
from dvdq_eval.methods import Method
from dvdq_eval.passes.running import FULL_WIDTH, Variant
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Mix:
    """Steps of a video by activation width, e.g. ``Mix({8: 21, 4: 29}, "out/cat.json")``.

    Attributes:
        steps_at: how many run at each width.
        source: ``constant``, or the record that tells them, by its name and its folder's.
        label: of the method that it is of; None is any that switches.
    """

    steps_at: Mapping[int, int]
    source: str
    label: str | None = None

    @classmethod
    def constant(cls, width: int, steps: int) -> Mix:
        """Every step at one width."""
        return cls({width: steps}, "constant")

    @classmethod
    def of(cls, operation: str, path: Path, label: str | None = None) -> Mix:
        """The steps that a video's record tells, as ``dvdq generate`` or a store of experiments wrote it.

        Raises:
            DvdqError: no such record, no steps in it, or steps that a cache skipped, whose time is not known here.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            steps: list[Any] = record["trace"]
            widths = [int(step["bits"]) for step in steps]
            skipped = bool(record.get("teacache") or record.get("reused")) or any(step["skipped"] for step in steps)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            expected = "the JSON record of a video, with its trace"
            raise DvdqError(operation, where=str(path), expected=expected, got=repr(error)) from error
        if not widths or skipped:
            got = "skipped ones" if skipped else "none"
            raise DvdqError(operation, where=str(path), expected="a trace of steps that all ran", got=got)
        return cls(dict(sorted(Counter(widths).items(), reverse=True)), "/".join(path.absolute().parts[-2:]), label)

    @property
    def steps(self) -> int:
        """All of them."""
        return sum(self.steps_at.values())

    def runs_on(self, variant: Variant) -> bool:
        """Whether it is of ``variant``: a method that switches, between these widths."""
        known = variant.switches and self.label in (None, variant.label)
        return known and self.steps_at.keys() <= set(variant.widths)


def check_mixes(operation: str, methods: Sequence[Method], variants: Sequence[Variant], mixes: Sequence[Mix]) -> None:
    """Refuse a method that switches where no trace tells how often, and a trace that no variant can run."""
    for method in methods:
        if method.recipe is not None and method.recipe.schedule.low < method.recipe.schedule.high and not mixes:
            expected = "--trace of a video, which tells how many steps ran at each width"
            raise DvdqError(operation, where=method.title, expected=expected, got="none")
    for mix in mixes:
        if not any(map(mix.runs_on, variants)):
            expected = f"a method that switches between {' and '.join(map(str, mix.steps_at))} bits"
            got = ", ".join(method.title for method in methods)
            raise DvdqError(operation, where=mix.source, expected=expected, got=got)


def add_up(
    medians: Mapping[Variant, Mapping[int, float]], mixes: Sequence[Mix], steps: int, passes: int
) -> tuple[VideoTime, ...]:
    """A video of ``steps`` steps for each variant at each of its widths, then one for each mix that is of it.

    Args:
        medians: seconds of a pass at each width; full precision is the first variant.
        mixes: traces of videos.
        steps: of a video at a constant width.
        passes: of the transformer in each step.
    """
    exact = next(iter(medians.values()))[FULL_WIDTH]
    return tuple(
        _video(variant, mix, at, exact, passes)
        for variant, at in medians.items()
        for mix in (*(Mix.constant(width, steps) for width in at), *(mix for mix in mixes if mix.runs_on(variant)))
    )


def _video(variant: Variant, mix: Mix, at: Mapping[int, float], exact: float, passes: int) -> VideoTime:
    seconds = passes * fsum(steps * at[width] for width, steps in mix.steps_at.items())
    return VideoTime(
        label=variant.label,
        bits=variant.bits(*mix.steps_at),
        steps_at={str(width): steps for width, steps in mix.steps_at.items()},
        passes=passes,
        trace=mix.source,
        seconds=seconds,
        ratio=passes * mix.steps * exact / seconds,
    )
