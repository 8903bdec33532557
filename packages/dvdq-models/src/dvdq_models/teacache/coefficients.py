"""The polynomials that turn a change of the signal into an expected change of the output: one JSON file a model.

Adding a model is adding a file to ``data/``, which says where it is from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from torch import nn

from dvdq_models.families.family import Signal
from dvdq_models.files.atomic import write_text
from dvdq_models.files.text import read_json
from dvdq_reference.spec.errors import DvdqError

DEGREE = 4
FOLDER = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Coefficients:
    """A polynomial of degree 4 and what it belongs to, e.g. ``Coefficients.named("wan2.1-t2v-1.3b")``.

    Attributes:
        name: of the model, with ``-ret`` where the first five steps are kept.
        values: the five coefficients, highest power first.
        signal: whose change goes in.
        warm_up: first steps of a video that are always computed.
        thresholds: those that its authors or the fit suggest, most careful first.
        architecture: entries of ``config.json`` by which the model is recognized; None if only by name.
        shared_with: other models of the same architecture, which it was not fitted to.
        provenance: where the values are from.
    """

    name: str
    values: tuple[float, ...]
    signal: Signal
    warm_up: int = 1
    thresholds: tuple[float, ...] = ()
    architecture: Mapping[str, Any] | None = None
    shared_with: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        operation = f"coefficients {self.name}"
        if len(self.values) != DEGREE + 1 or not all(math.isfinite(value) for value in self.values):
            raise DvdqError(operation, where="values", expected=f"{DEGREE + 1} finite numbers", got=self.values)
        if self.signal not in get_args(Signal):
            raise DvdqError(operation, where="signal", expected=" or ".join(get_args(Signal)), got=self.signal)
        if self.warm_up < 1:
            raise DvdqError(operation, where="warm_up", expected="at least 1 step", got=self.warm_up)

    def expected_change(self, distance: float) -> float:
        """The polynomial at a relative change of the signal, or 0 where it falls below: no change is less than none."""
        return max(float(np.polynomial.polynomial.polyval(distance, self.values[::-1])), 0.0)

    @classmethod
    def named(cls, name: str) -> Self:
        """The coefficients of one name; an unknown one is a :class:`DvdqError` that lists the known."""
        if name not in names():
            raise DvdqError("coefficients", where="name", expected=" or ".join(names()), got=repr(name))
        return cls.load(FOLDER / f"{name}.json")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What :meth:`save` wrote; a :class:`DvdqError` if the file holds other fields."""
        stored: dict[str, Any] = read_json("coefficients", Path(path))
        expected = {f.name for f in fields(cls)}
        if set(stored) != expected:
            raise DvdqError("coefficients", where=str(path), expected=sorted(expected), got=sorted(stored))
        stored |= {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
        return cls(**stored)

    def save(self, path: str | Path) -> None:
        """Writes a JSON file, one field a line."""
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in vars(self).items())
        write_text(Path(path), "{\n" + ",\n".join(lines) + "\n}\n")


@cache
def names() -> tuple[str, ...]:
    """The names that :meth:`Coefficients.named` takes."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def coefficients_of(transformer: nn.Module) -> Coefficients:
    """The coefficients of the one known model that has this architecture.

    Raises:
        DvdqError: none is known, or other models have the same architecture; says how to give or fit them.
    """
    config = {"_class_name": type(transformer).__name__, **getattr(transformer, "config", {})}
    known = [Coefficients.named(name) for name in names()]
    fitting = [c for c in known if c.architecture is not None and _matches(c.architecture, config)]
    models = [model for c in fitting for model in (c.name, *c.shared_with)]
    if len(models) == 1:
        return fitting[0]
    got = "a model that none was fitted to" if not models else f"one of {', '.join(models)}, which look alike"
    raise DvdqError(
        "enable_teacache",
        where=type(transformer).__name__,
        expected=f"coefficients= a name ({', '.join(names())}) or what fit_coefficients gives",
        got=got,
    )


def _matches(architecture: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(_plain(config.get(key)) == _plain(value) for key, value in architecture.items())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
