"""The studies of stores: what every method has, what failed, what was measured, and each method in figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvdq_eval.progress import Tell
from dvdq_eval.records import read_record
from dvdq_eval.report.parts import Source
from dvdq_eval.report.reading import OPERATION
from dvdq_eval.tables.catalogue import EXPERIMENTS
from dvdq_eval.tables.rows import Measured, Summary, summary_of
from dvdq_eval.vbench.score import Score, scores_of
from dvdq_eval.videos.records import Failure, MethodRecord, StudyRecord
from dvdq_eval.videos.store import MethodFolder, StoredVideo


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
    folders, what = sorted(folder for folder in path.parent.iterdir() if folder.is_dir()), f"Reading {study.name}"
    for done, place in enumerate(folders):
        tell(what, done, len(folders))
        folder = MethodFolder(place)
        about, failed = folder.about, folder.failures()
        failures += [(place.name if about is None else about.title, failure) for failure in failed.values()]
        if about is not None:
            scores = tuple(scores_of(folder).values())
            methods.append(FoundMethod(place.name, about, folder.videos(), failed, scores))
    tell(what, len(folders), len(folders))
    return FoundStudy(name, study, tuple(_in_order(methods)), tuple(failures))


def _in_order(methods: Sequence[FoundMethod]) -> list[FoundMethod]:
    """As the tables name them; methods of no table after those, by their titles."""
    titles = [line.method.title for experiment in EXPERIMENTS.values() for line in experiment.lines]
    places = {title: place for place, title in reversed(list(enumerate(titles)))}
    return sorted(methods, key=lambda m: (places.get(m.about.title, len(places)), m.about.title, m.key))


def summarise(study: FoundStudy, tell: Tell) -> list[Summary]:
    """Every method of a study."""
    methods, what = study.methods, f"Intervals of {study.about.name}"
    summaries = []
    for done, method in enumerate(methods):
        tell(what, done, len(methods))
        summaries.append(summary_of(method.measured, len(method.failures)))
    tell(what, len(methods), len(methods))
    return summaries
