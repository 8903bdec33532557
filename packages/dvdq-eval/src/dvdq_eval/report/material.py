"""What a chapter is made from: a study with the files that commands wrote of the same pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dvdq_eval.progress import Tell
from dvdq_eval.report.files import Found, read_file
from dvdq_eval.report.reading import walk
from dvdq_eval.report.studies import FoundStudy, read_study

T = TypeVar("T")


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
