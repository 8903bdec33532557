"""One way to run a model, as data: full precision, a recipe, a recipe with TeaCache, or somebody else's package."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from dvdq_reference.spec.recipe import Recipe


@dataclass(frozen=True)
class Configuration:
    """E.g. ``Configuration("DVD-Quant", "W4A6", recipe, average=6.0)``; full precision has no recipe and no peer.

    Attributes:
        label: the method, for people.
        bits: e.g. ``W4A6``; empty for full precision.
        recipe: of our own layers.
        average: a wanted mean activation width, for which the recipe's δ is tuned; None leaves δ as it is.
        teacache: threshold below which steps are skipped.
        peer: a configuration of :mod:`dvdq_eval.peers` in place of a recipe.
    """

    label: str
    bits: str = ""
    recipe: Recipe | None = None
    average: float | None = None
    teacache: float | None = None
    peer: str | None = None

    @classmethod
    def named(cls, label: str, name: str, bits: str, **changes: Any) -> Configuration:
        """A named recipe with fields replaced; one that switches is tuned for an average of six bits."""
        recipe = Recipe.named(name, bits, **changes)
        return cls(label, bits, recipe, average=6.0 if recipe.schedule.kind == "delta" else None)

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        cached = "" if self.teacache is None else f" + TeaCache {self.teacache:g}"
        return f"{self.label} {self.bits}".strip() + cached

    def with_delta(self, delta: float) -> Configuration:
        """With the δ that was found."""
        assert self.recipe is not None
        schedule = dataclasses.replace(self.recipe.schedule, delta=delta)
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, schedule=schedule), average=None)

    def to_dict(self) -> dict[str, Any]:
        """What decides the videos, JSON-ready; two labels of the same are the same."""
        recipe = None if self.recipe is None else self.recipe.to_dict() | {"name": None}
        return {"recipe": recipe, "average": self.average, "teacache": self.teacache, "peer": self.peer}

    @property
    def key(self) -> str:
        """A name for a folder, from :meth:`to_dict`."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


FULL_PRECISION = Configuration("Full precision")
