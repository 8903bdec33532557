"""Folders and JSON files as they come, found by walking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dvdq_reference.spec.errors import DvdqError

OPERATION = "report"


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
