"""What commands wrote of a model besides videos, by the names of the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec

from dvdq_eval.internals import LayerError
from dvdq_eval.latency.results import Latency
from dvdq_eval.layers.results import LayerTable
from dvdq_eval.memory.results import Memory
from dvdq_eval.records import read_record
from dvdq_eval.report.parts import Source
from dvdq_eval.report.reading import OPERATION
from dvdq_eval.tables.cost import Cost
from dvdq_eval.tables.rows import Table

T = TypeVar("T", covariant=True)

SYNTHETIC = "synthetic layers"
"""What is about no model."""


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


class _Of(msgspec.Struct, frozen=True):
    """What every file says of itself: the pipeline, or the model, and where it comes from."""

    provenance: dict[str, Any]
    pipeline: str | None = None
    model: str = ""
    settings: dict[str, Any] | None = None


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
    kind = next((kind for pattern, kind in _KINDS.items() if re.fullmatch(pattern, path.name)), None)
    if kind is None:
        return None
    about, value = read_record(path, _Of, OPERATION), read_record(path, kind, OPERATION)
    return Found(about.pipeline or about.model or SYNTHETIC, about.settings, value, Source(name, about.provenance))


_KINDS: Mapping[str, type[Any]] = MappingProxyType(
    {
        r"(table-[1-4]|figure-6|beyond|methods)\.json": Table,
        r"table-5\.json": Costs,
        r"figure-3\.json": LayerErrors,
        r"figure-4\.json": Channels,
        r"latency\.json": Latency,
        r"layers\.json": LayerTable,
        r"memory\.json": Memory,
    }
)
