"""A recipe from command-line options."""

from __future__ import annotations

from dvdq_models.quantization_config import with_delta, with_ends
from dvdq_reference.spec.recipe import Recipe


def recipe_from(
    name: str,
    bits: str,
    delta: float | None = None,
    first_high: int | None = None,
    last_high: int | None = None,
    *,
    finish: bool = False,
    feedback: bool = False,
) -> Recipe:
    """``Recipe.named(name, bits)`` with what is given replaced; δ without a switch is an error.

    ``finish`` adds a second set of codes by the same rule as the first; ``feedback`` rounds all with error feedback.
    """
    recipe = Recipe.named(name, bits)
    if feedback:
        recipe = recipe.with_feedback()
    recipe = recipe if delta is None else with_delta(recipe, delta)
    return with_ends(recipe, first_high=first_high, last_high=last_high, finish=recipe.weight if finish else None)
