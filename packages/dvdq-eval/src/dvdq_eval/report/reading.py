"""Folders and JSON files as they come: found by walking, read with one error that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dvdq_reference.spec.errors import DvdqError

OPERATION = "report"
T = TypeVar("T")


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


def having(*names: str) -> Callable[[Any], dict[str, Any]]:
    """What :func:`read` takes to read an object that has these fields at least."""

    def parse(values: dict[str, Any]) -> dict[str, Any]:
        if missing := set(names) - values.keys():
            raise KeyError(min(missing))
        return values

    return parse


def read(path: Path, parse: Callable[[Any], T]) -> T:
    """What ``parse`` makes of a JSON file's values.

    Raises:
        DvdqError: the file is not JSON, or lacks what ``parse`` looks for.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise DvdqError(OPERATION, where=str(path), expected="what this version writes", got=got) from error
