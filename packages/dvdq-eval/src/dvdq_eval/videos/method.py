"""One way to run a model, as data: full precision, a recipe, a recipe with TeaCache, or somebody else's package."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from dvdq_eval.methods import title_of
from dvdq_eval.peers.records import Peer
from dvdq_models.quantization_config import with_delta
from dvdq_reference.spec.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """E.g. ``Method("DVD-Quant", "W4A6", recipe, average=6.0)``; full precision has no recipe and no peer.

    Attributes:
        label: the method, for people.
        bits: e.g. ``W4A6``; empty for full precision.
        recipe: of our own layers.
        average: a wanted mean activation width, for which the recipe's δ is tuned; None leaves δ as it is.
        teacache: threshold below which steps are skipped.
        peer: in place of a recipe.
    """

    label: str
    bits: str = ""
    recipe: Recipe | None = None
    average: float | None = None
    teacache: float | None = None
    peer: Peer | None = None

    @classmethod
    def named(cls, label: str, name: str, bits: str, **changes: Any) -> Method:
        """A named recipe with fields replaced; one that switches is tuned for an average of six bits."""
        recipe = Recipe.named(name, bits, **changes)
        return cls(label, bits, recipe, average=6.0 if recipe.schedule.kind == "delta" else None)

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        return title_of(self.label, self.bits, self.teacache)

    @property
    def slug(self) -> str:
        """For file names, e.g. ``dvd-quant-w4a6``."""
        return self.title.lower().replace(" ", "-")

    @property
    def smooths(self) -> bool:
        """Whether it has to see activations first."""
        smoothing = None if self.recipe is None else self.recipe.smoothing
        return smoothing is not None and smoothing.calibrated

    def with_delta(self, delta: float) -> Method:
        """With the δ that was found."""
        assert self.recipe is not None
        return dataclasses.replace(self, recipe=with_delta(self.recipe, delta), average=None)

    def to_dict(self) -> dict[str, Any]:
        """What decides the videos, JSON-ready; two names of the same are the same."""
        peer = None if self.peer is None else self.peer.to_dict()
        return {"recipe": self._decisive(), "average": self.average, "teacache": self.teacache, "peer": peer}

    def _decisive(self) -> dict[str, Any] | None:
        """The recipe without its name, and without the width that its schedule overrides."""
        if self.recipe is None:
            return None
        activation = dataclasses.replace(self.recipe.activation, bits=self.recipe.schedule.high)
        return dataclasses.replace(self.recipe, activation=activation).to_dict() | {"name": None}

    @property
    def key(self) -> str:
        """A name for a folder, from :meth:`to_dict`."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


FULL_PRECISION = Method("Full precision")
