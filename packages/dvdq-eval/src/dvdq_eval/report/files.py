"""What commands wrote of a model besides videos, by the names of the files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from dvdq_eval.internals import LayerError
from dvdq_eval.intervals import Interval
from dvdq_eval.latency.results import Latency
from dvdq_eval.memory.results import Memory
from dvdq_eval.report.origin import Source
from dvdq_eval.report.reading import read
from dvdq_eval.tables.build import Row, Table
from dvdq_eval.tables.cost import Cost

T = TypeVar("T", covariant=True)


@dataclass(frozen=True)
class Costs:
    """``table-5.json``."""

    rows: tuple[Cost, ...]


@dataclass(frozen=True)
class LayerErrors:
    """``figure-3.json``."""

    layers: tuple[LayerError, ...]


@dataclass(frozen=True)
class Channels:
    """``figure-4.json``: the largest magnitudes of one layer's channels, and how far the largest stands out."""

    layer: str
    prompt: str
    peaks: dict[str, list[float]]
    crest: dict[str, float]


@dataclass(frozen=True)
class Found(Generic[T]):
    """A file read as what it is.

    Attributes:
        model: what it is about, for people.
        settings: of the pipeline's calls; None where the figures do not depend on them.
        value: what it says.
        source: where it lies, and what was running when it was written.
    """

    model: str
    settings: dict[str, Any] | None
    value: T
    source: Source


def read_file(path: Path, name: str) -> Found[Any] | None:
    """The file as what its name says; None if no command of ours writes files of that name."""
    parse = next((parse for pattern, parse in _KINDS.items() if re.fullmatch(pattern, path.name)), None)
    if parse is None:
        return None

    def found(values: dict[str, Any]) -> Found[Any]:
        model = values["pipeline"] if "pipeline" in values else values["model"]
        return Found(model, values.get("settings"), parse(values), Source(name, values["provenance"]))

    return read(path, found)


def _table(values: dict[str, Any]) -> Table:
    return Table(**{**values, "rows": tuple(_row(row) for row in values["rows"])})


def _row(values: dict[str, Any]) -> Row:
    intervals = {
        field: {name: Interval(**value) for name, value in values[field].items()}
        for field in ("metrics", "differences")
    }
    return Row(**{**values, **intervals, "commits": tuple(values["commits"])})


def _costs(values: dict[str, Any]) -> Costs:
    return Costs(tuple(Cost(**row) for row in values["rows"]))


def _layer_errors(values: dict[str, Any]) -> LayerErrors:
    return LayerErrors(tuple(LayerError(**layer) for layer in values["layers"]))


def _channels(values: dict[str, Any]) -> Channels:
    return Channels(values["layer"], values["prompt"], values["peaks"], values["crest"])


def _latency(values: dict[str, Any]) -> Latency:
    return Latency.from_json(json.dumps(values))


def _memory(values: dict[str, Any]) -> Memory:
    return Memory.from_json(json.dumps(values))


_KINDS: Mapping[str, Callable[[dict[str, Any]], object]] = MappingProxyType(
    {
        r"(table-[1-4]|figure-6|beyond|methods)\.json": _table,
        r"table-5\.json": _costs,
        r"figure-3\.json": _layer_errors,
        r"figure-4\.json": _channels,
        r"latency\.json": _latency,
        r"memory\.json": _memory,
    }
)
