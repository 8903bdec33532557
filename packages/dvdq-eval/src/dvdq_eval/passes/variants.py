"""What is measured of the methods: each recipe's weights once, at every width that its activations ever have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from dvdq_eval.videos.method import Method
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BitSchedule, Recipe

FULL_WIDTH = 16
"""Bits of activations that are not quantized."""


@dataclass(frozen=True)
class Variant:
    """One set of weights and the widths that it runs at, e.g. that of W4A8, W4A6 and W4A4 at 8 and 4 bits.

    Attributes:
        label: of the method, for people.
        recipe: of the weights, whatever its schedule; None in full precision.
        widths: bits of activations, the most first.
        switches: whether a method of it changes between them.
    """

    label: str
    recipe: Recipe | None
    widths: tuple[int, ...]
    switches: bool = False

    def bits(self, *widths: int) -> str:
        """For people, e.g. ``W4A8``; a mix of widths is ``W4A6``, as the paper calls it; empty in full precision."""
        if self.recipe is None:
            return ""
        return f"W{self.recipe.weight.bits}A{widths[0] if len(widths) == 1 else 6}"


def variants_of(operation: str, methods: Sequence[Method]) -> tuple[Variant, ...]:
    """The variants that ``methods`` need, in their order.

    Raises:
        DvdqError: somebody else's layers, or TeaCache, which leaves passes out.
    """
    widths: dict[tuple[str, Recipe | None], set[int]] = {}
    switching: set[tuple[str, Recipe | None]] = set()
    for method in methods:
        if method.peer is not None or method.teacache is not None:
            raise DvdqError(operation, where=method.title, expected="full precision, or a recipe alone", got="more")
        recipe, found = method.recipe, {FULL_WIDTH}
        if recipe is not None:
            found = {recipe.schedule.high, recipe.schedule.low}
            # What the schedule decides is no part of the weights.
            activation = dataclasses.replace(recipe.activation, bits=8)
            schedule = BitSchedule(last_high=0 if recipe.finish is None else 1)
            recipe = dataclasses.replace(recipe, activation=activation, schedule=schedule)
        key = (method.label, recipe)
        widths.setdefault(key, set()).update(found)
        if len(found) > 1:
            switching.add(key)
    return tuple(Variant(*key, tuple(sorted(found, reverse=True)), key in switching) for key, found in widths.items())
