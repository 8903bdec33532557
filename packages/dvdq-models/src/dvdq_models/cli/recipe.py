"""A recipe from command-line options."""

from __future__ import annotations

import dataclasses

from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe


def recipe_from(name: str, bits: str, delta: float | None = None) -> Recipe:
    """``Recipe.named(name, bits)`` with δ replaced; δ without a switch is an error."""
    recipe = Recipe.named(name, bits)
    if delta is None:
        return recipe
    if recipe.schedule.kind != "delta":
        raise DvdqError("recipe", where="--delta", expected="a schedule that switches (W4A6)", got=bits)
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, delta=delta))
