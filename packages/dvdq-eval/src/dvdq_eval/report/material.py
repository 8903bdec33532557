"""What a chapter is made from: the studies of stores, and the files that commands wrote of the same pipelines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec

from dvdq_eval.internals import LayerError
from dvdq_eval.latency.results import Latency
from dvdq_eval.layers.results import LayerTable
from dvdq_eval.memory.results import Memory
from dvdq_eval.progress import Tell, told
from dvdq_eval.records import read_record
from dvdq_eval.report.parts import Part, Section, Source
from dvdq_eval.tables.catalogue import EXPERIMENTS
from dvdq_eval.tables.cost import Cost
from dvdq_eval.tables.rows import Measured, Summary, Table, summary_of
from dvdq_eval.vbench.scoring import Score, scores_of
from dvdq_eval.videos.records import Failure, MethodRecord, StudyRecord
from dvdq_eval.videos.store import MethodFolder, StoredVideo
from dvdq_reference.spec.errors import DvdqError

OPERATION = "report"

T = TypeVar("T")
Value = TypeVar("Value", covariant=True)


def walk(folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Every JSON file below the folders once, in order, each with its name from the folder on that was given.

    Raises:
        DvdqError: one is no folder.
    """
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise DvdqError(
                OPERATION, where=str(folder), expected="a folder", got="a file" if folder.exists() else "none"
            )
        for path in sorted(folder.rglob("*.json")):
            real = path.resolve()
            if real not in seen and not path.name.startswith("."):
                seen.add(real)
                yield path, f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}"


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
class Found(Generic[Value]):
    """A file read as what it is.

    Attributes:
        model: what it is about, for people.
        settings: of the pipeline's calls; None where the figures do not depend on them.
        value: what it says.
        source: where it lies, and what was running when it was written.
    """

    model: str
    settings: dict[str, Any] | None
    value: Value
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
        r"(table-[1-4]|figure-6|beyond|finish|methods)\.json": Table,
        r"table-5\.json": Costs,
        r"figure-3\.json": LayerErrors,
        r"figure-4\.json": Channels,
        r"latency\.json": Latency,
        r"layers\.json": LayerTable,
        r"memory\.json": Memory,
    }
)


@dataclass(frozen=True)
class FoundMethod:
    """What a store has of a method.

    Attributes:
        key: its folder's name.
        about: its record.
        videos, failures: by the names of their jobs.
        scores: of VBench.
    """

    key: str
    about: MethodRecord
    videos: dict[str, StoredVideo]
    failures: dict[str, Failure]
    scores: tuple[Score, ...]

    @property
    def measured(self) -> Measured:
        """What its row is made from; VBench's scores have a section of their own."""
        return Measured(self.key, self.about, tuple(self.videos.values()))


@dataclass(frozen=True)
class FoundStudy:
    """A study's folder: ``name`` is where it lies, ``methods`` are in the tables' order.

    ``failures`` have the title of their method, or its folder's name if it failed before it had one.
    """

    name: str
    about: StudyRecord
    methods: tuple[FoundMethod, ...]
    failures: tuple[tuple[str, Failure], ...]

    @property
    def jobs(self) -> tuple[str, ...]:
        """The names of all videos that any method has or failed to make: in the order of their seeds."""
        return tuple(sorted({name for method in self.methods for name in (*method.videos, *method.failures)}))

    @property
    def sources(self) -> list[Source]:
        """The folder, with the provenance of each method."""
        return [Source(self.name, method.about.provenance) for method in self.methods]


def read_study(path: Path, name: str, tell: Tell) -> FoundStudy:
    """The study whose ``study.json`` is ``path``."""
    study = read_record(path, StudyRecord, OPERATION)
    methods: list[FoundMethod] = []
    failures: list[tuple[str, Failure]] = []
    folders = sorted(folder for folder in path.parent.iterdir() if folder.is_dir())
    for place in told(tell, f"Reading {study.name}", folders):
        folder = MethodFolder(place)
        about, failed = folder.about, folder.failures()
        failures += [(place.name if about is None else about.title, failure) for failure in failed.values()]
        if about is not None:
            scores = tuple(scores_of(folder).values())
            methods.append(FoundMethod(place.name, about, folder.videos(), failed, scores))
    return FoundStudy(name, study, tuple(_in_order(methods)), tuple(failures))


def _in_order(methods: Sequence[FoundMethod]) -> list[FoundMethod]:
    """As the tables name them; methods of no table after those, by their titles."""
    titles = [line.method.title for experiment in EXPERIMENTS.values() for line in experiment.lines]
    places = {title: place for place, title in reversed(list(enumerate(titles)))}
    return sorted(methods, key=lambda m: (places.get(m.about.title, len(places)), m.about.title, m.key))


def summarise(study: FoundStudy, tell: Tell) -> list[Summary]:
    """Every method of a study."""
    methods = told(tell, f"Intervals of {study.about.name}", study.methods)
    return [summary_of(method.measured, len(method.failures)) for method in methods]


@dataclass
class Material:
    """All that was found of one model.

    Attributes:
        model: its name, for people.
        settings: of the calls of its pipeline; None where nothing says.
        study: its videos, if there are any.
        files: what commands wrote of it.
    """

    model: str
    settings: dict[str, Any] | None
    study: FoundStudy | None = None
    files: list[Found[Any]] = field(default_factory=list)

    def of(self, kind: type[T]) -> list[Found[T]]:
        """The files that hold one kind of values."""
        return [file for file in self.files if isinstance(file.value, kind)]

    def section(self, kind: type[T], key: str, title: str, parts: Callable[[T], Sequence[Part]]) -> Section | None:
        """What there is to say of all files that hold one kind of values; None if there are none."""
        found = self.of(kind)
        said = [part for file in found for part in parts(file.value)]
        return Section(key, title, said, [file.source for file in found]) if found else None

    def takes(self, file: Found[Any]) -> bool:
        """Whether a file is about this model, called in this way if both say how."""
        return self.model == file.model and (file.settings is None or self.settings in (None, file.settings))


def gather(folders: Sequence[Path], tell: Tell) -> list[Material]:
    """Everything below the folders by model, by name: one for each study, others for what is of no study.

    Raises:
        DvdqError: a folder is none, or a file cannot be read.
    """
    found = list(walk(folders))
    studies = {path.parent: read_study(path, name, tell) for path, name in found if path.name == "study.json"}
    materials = [Material(study.about.name, study.about.settings, study) for study in studies.values()]
    for path, name in found:
        if studies.keys() & set(path.parents) or (file := read_file(path, name)) is None:
            continue
        taker = next((material for material in materials if material.takes(file)), None)
        if taker is None:
            taker = Material(file.model, file.settings)
            materials.append(taker)
        taker.settings = taker.settings if taker.settings is not None else file.settings
        taker.files.append(file)
    return sorted(materials, key=lambda material: material.model)
