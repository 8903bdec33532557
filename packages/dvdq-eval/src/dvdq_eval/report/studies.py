"""The studies of a store: what every method has, what failed, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvdq_eval.progress import Tell
from dvdq_eval.report.origin import Source
from dvdq_eval.report.reading import having, read
from dvdq_eval.tables.catalogue import EXPERIMENTS
from dvdq_eval.vbench.score import Score
from dvdq_eval.videos.method import Configuration

_METHOD = having(
    "label",
    "bits",
    "configuration",
    "bytes",
    "bytes_before",
    "bits_per_weight",
    "prepare_seconds",
    "calibration_seconds",
)


@dataclass(frozen=True)
class FoundVideo:
    """A complete video: its record, what was measured of it, if it was, and its frames' file."""

    record: dict[str, Any]
    quality: dict[str, Any] | None
    path: Path


@dataclass(frozen=True)
class Failure:
    """A generation that failed; ``method`` is its title, or its folder's name if it failed before it had one."""

    method: str
    prompt: str
    seed: int
    error: str


@dataclass(frozen=True)
class FoundMethod:
    """One method of a study.

    Attributes:
        key: its folder's name.
        about: its ``method.json``.
        videos, failures: by the names of their jobs.
        scores: of VBench.
    """

    key: str
    about: dict[str, Any]
    videos: dict[str, FoundVideo]
    failures: dict[str, Failure]
    scores: tuple[Score, ...]

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        return _title(self.about)

    @property
    def label(self) -> str:
        """For people, without widths."""
        return str(self.about["label"])

    @property
    def schedule(self) -> dict[str, Any] | None:
        """Of the recipe's widths, if it has one."""
        recipe = self.about["configuration"]["recipe"]
        return None if recipe is None else recipe["schedule"]

    @property
    def cached(self) -> bool:
        """Whether TeaCache skips steps."""
        return self.about["configuration"]["teacache"] is not None

    @property
    def exact(self) -> bool:
        """Whether this is full precision, every step computed."""
        return all(value is None for value in self.about["configuration"].values())


@dataclass(frozen=True)
class FoundStudy:
    """A study's folder: ``name`` is where it lies, ``about`` its ``study.json``, ``methods`` in the tables' order."""

    name: str
    about: dict[str, Any]
    methods: tuple[FoundMethod, ...]
    failures: tuple[Failure, ...]

    @property
    def jobs(self) -> tuple[str, ...]:
        """The names of all videos that any method has or failed to make: in the order of their seeds."""
        return tuple(sorted({name for method in self.methods for name in (*method.videos, *method.failures)}))

    @property
    def sources(self) -> list[Source]:
        """The folder, with the provenance of each method."""
        return [Source(self.name, method.about.get("provenance", {})) for method in self.methods]


def read_study(path: Path, name: str, tell: Tell) -> FoundStudy:
    """The study whose ``study.json`` is ``path``."""
    about = read(path, having("name", "settings"))
    methods: list[FoundMethod] = []
    failures: list[Failure] = []
    folders, what = sorted(folder for folder in path.parent.iterdir() if folder.is_dir()), f"Reading {about['name']}"
    for done, folder in enumerate(folders):
        tell(what, done, len(folders))
        failed, described = dict(_failures(folder)), folder / "method.json"
        failures += failed.values()
        if described.exists():
            videos = dict(_videos(folder))
            scores = tuple(read(score, Score.from_dict) for score in sorted(folder.glob("vbench-*.json")))
            methods.append(FoundMethod(folder.name, read(described, _METHOD), videos, failed, scores))
    tell(what, len(folders), len(folders))
    return FoundStudy(name, about, tuple(_in_order(methods)), tuple(failures))


def _failures(folder: Path) -> Iterator[tuple[str, Failure]]:
    described = folder / "method.json"
    title = read(described, _title) if described.exists() else folder.name
    for path in sorted(folder.glob("[!.]*.failed.json")):
        values = read(path, having("prompt", "seed", "error"))
        yield path.name.partition(".")[0], Failure(title, values["prompt"], values["seed"], values["error"])


def _videos(folder: Path) -> Iterator[tuple[str, FoundVideo]]:
    for path in sorted(folder.glob("[!.]*.mkv")):
        record, quality = path.with_suffix(".json"), path.with_suffix(".quality.json")
        if record.exists():
            measured = read(quality, having()) if quality.exists() else None
            yield path.stem, FoundVideo(read(record, having("prompt", "seed", "seconds", "commit")), measured, path)


def _title(about: dict[str, Any]) -> str:
    return Configuration(about["label"], about["bits"], teacache=about["configuration"]["teacache"]).title


def _in_order(methods: Sequence[FoundMethod]) -> list[FoundMethod]:
    """As the tables name them; methods of no table after those, by their titles."""
    titles = [line.configuration.title for experiment in EXPERIMENTS.values() for line in experiment.lines]
    places = {title: place for place, title in reversed(list(enumerate(titles)))}
    return sorted(methods, key=lambda method: (places.get(method.title, len(places)), method.title, method.key))
