"""A recipe from command-line options."""

from __future__ import annotations

from dvdq_models.quantization_config import with_delta
from dvdq_reference.spec.recipe import Recipe


def recipe_from(name: str, bits: str, delta: float | None = None) -> Recipe:
    """``Recipe.named(name, bits)`` with δ replaced; δ without a switch is an error."""
    recipe = Recipe.named(name, bits)
    return recipe if delta is None else with_delta(recipe, delta)
