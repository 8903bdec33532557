"""The methods that are compared: how each runs a model, as data, and what the paper's, others' and ours are called."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dvdq_eval.peers.records import Peer
from dvdq_models.quantization_config import with_delta
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import (
    DEFAULT_BLOCK,
    ActivationRule,
    BitSchedule,
    Recipe,
    Rotation,
    Smoothing,
    WeightRule,
)


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
    def calibrated(self) -> bool:
        """Whether it has to see activations first."""
        return self.recipe is not None and (self.recipe.smooths_by_maxima or self.recipe.feeds_back)

    @property
    def feeds_back(self) -> bool:
        """Whether it is to know their second moments too."""
        return self.recipe is not None and self.recipe.feeds_back

    def with_feedback(self) -> Method:
        """The same recipe, its weights rounded by second moments of videos that the model makes."""
        assert self.recipe is not None
        label = f"{self.label}, rounded by its own videos"
        return dataclasses.replace(self, label=label, recipe=self.recipe.with_feedback())

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


BASELINES: Mapping[str, str] = MappingProxyType(
    {"MinMax": "minmax", "SmoothQuant": "smoothquant", "QuaRot": "quarot", "ViDiT-Q": "vidit-q"}
)
"""The paper's, by label: the name of each one's recipe."""

LABELS: Mapping[str, str] = MappingProxyType(
    {name: label for label, name in BASELINES.items()}
    | {"dvd-quant": "DVD-Quant", "dvd-quant-plus": "DVD-Quant plus", "dvd-quant-finish": "DVD-Quant finish"}
)
"""For people, by the name of a recipe."""

AS_PUBLISHED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "QuaRot, clipped": (
            "quarot",
            {
                "weight": WeightRule(4, "clip-search", symmetric=True),
                "activation": ActivationRule(8, None, "quarot"),
            },
        ),
        "ViDiT-Q, α 0.11": ("vidit-q", {"smoothing": Smoothing("vidit-q", 0.89)}),
        "ViDiT-Q, weights twice": ("vidit-q", {"smoothing": Smoothing("vidit-q", 0.5, twice=True)}),
    }
)
"""What two of them do in their own experiments or code: QuaRot clips activations to 0.9 of their range and searches the
clip of weights; ViDiT-Q's configuration for video has α = 0.11 as SmoothQuant counts it, and its code quantizes the
smoothed weight once more."""

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "groups of 64": {"weight": WeightRule(4, "bgr", 64)},
        "groups of 128": {"weight": WeightRule(4, "bgr", 128)},
        "groups of 256": {"weight": WeightRule(4, "bgr", 256)},
        "Gaussian clip": {"activation": ActivationRule(8, DEFAULT_BLOCK, "gaussian")},
        "no random signs": {"rotation": Rotation("full")},
        "blocks of 256 rotated": {"rotation": Rotation("block")},
        "regular blocks of 256 rotated": {"rotation": Rotation("regular")},
        "a scale per token": {"activation": ActivationRule(8, None)},
        "a scale per 64": {"activation": ActivationRule(8, 64)},
        "signed scales": {"activation": ActivationRule(8, DEFAULT_BLOCK, "signed")},
        "signed scales per 64": {"activation": ActivationRule(8, 64, "signed")},
        "smoothed without data": {"smoothing": Smoothing("analytic")},
        "rounded by its own videos": {"weight": WeightRule(4, "bgr", rounding="feedback")},
        "BGR with 1 bound": {"weight": WeightRule(4, "bgr", num_bounds=1)},
        "BGR with 20 bounds": {"weight": WeightRule(4, "bgr", num_bounds=20)},
        "BGR to tolerance 0": {"weight": WeightRule(4, "bgr", tolerance=0.0)},
    }
)
"""What each choice beyond the paper changes in ``dvd-quant``: one field."""


def title_of(label: str, bits: str, teacache: float | None = None) -> str:
    """A method for people, e.g. ``DVD-Quant W4A6 + TeaCache 0.1``; full precision has no bits."""
    cached = "" if teacache is None else f" + TeaCache {teacache:g}"
    return f"{label} {bits}".strip() + cached


def weights_of(recipe: Recipe | None) -> Recipe | None:
    """What decides the quantized layers: a recipe without its name and its widths of activations."""
    if recipe is None:
        return None
    activation = dataclasses.replace(recipe.activation, bits=8)
    schedule = BitSchedule(last_high=0 if recipe.finish is None else 1)
    return dataclasses.replace(recipe, name="", activation=activation, schedule=schedule)


def parse_methods(operation: str, names: Sequence[str]) -> tuple[Method, ...]:
    """Full precision, and what ``names`` say as ``RECIPE:BITS``, e.g. ``dvd-quant:W4A4``; each once, in their order.

    ``RECIPE:BITS:feedback`` is the recipe with its weights rounded by the model's own videos.
    """
    found = [FULL_PRECISION]
    for name in names:
        recipe, *rest = name.split(":")
        if not rest or rest[1:] not in ([], ["feedback"]):
            expected = "RECIPE:BITS, e.g. dvd-quant:W4A4, or RECIPE:BITS:feedback"
            raise DvdqError(operation, where="--method", expected=expected, got=repr(name))
        method = Method.named(LABELS.get(recipe, recipe), recipe, rest[0])
        found.append(method.with_feedback() if rest[1:] else method)
    return tuple(dict.fromkeys(found))
