"""Results in files and folders that appear whole or not at all; JSON is read as the type that it is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from dvdq_reference.spec.errors import DvdqError

T = TypeVar("T")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path``, of the same ending and this process's own; its file takes the place if all went well."""
    new = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8, at once or not at all."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def to_json(record: object) -> str:
    """Strict JSON of a dataclass, a structure or plain values."""
    return json.dumps(msgspec.to_builtins(record), indent=1, allow_nan=False) + "\n"


def write_record(path: Path, record: object) -> None:
    """:func:`to_json` in a file, at once or not at all."""
    write_text(path, to_json(record))


def write_result(folder: Path, name: str, record: object, tables: str) -> None:
    """A result in two files, each at once or not at all: ``<name>.json``, and ``<name>.md`` of its tables."""
    write_text(folder / f"{name}.md", tables)
    write_record(folder / f"{name}.json", record)


def read_record(path: Path, kind: type[T], operation: str = "read") -> T:
    """What :func:`write_record` wrote of a ``kind``; fields that it does not have are passed over.

    Raises:
        DvdqError: no such file, no JSON, or a field that is missing or of another type.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DvdqError(operation, where=str(path), expected="what this version writes", got=str(error)) from error


def find_record(path: Path, kind: type[T], operation: str = "read") -> T | None:
    """The same; None where there is no file."""
    return read_record(path, kind, operation) if path.exists() else None


@contextmanager
def complete_folder(final: Path, contents: frozenset[str]) -> Iterator[Path]:
    """A fresh folder that takes the name ``final`` if the block succeeds, and vanishes if it does not.

    An earlier folder of that name is replaced at the end if it holds nothing but ``contents``, the names that the
    block writes; any other is left alone and is a :class:`DvdqError` before the block begins.
    """
    final = final.absolute()
    _check_replaceable(final, contents)
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    try:
        built, earlier = staging / "new", staging / "earlier"
        built.mkdir()
        yield built
        _check_replaceable(final, contents)
        if final.exists():
            final.rename(earlier)
        built.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(final: Path, contents: frozenset[str]) -> None:
    if not final.exists():
        return
    others = sorted(entry.name for entry in final.iterdir() if entry.name not in contents) if final.is_dir() else None
    if others is None or others:
        got = "a file" if others is None else f"one that also holds {', '.join(others[:3])}"
        raise DvdqError("write", where=str(final), expected="a new folder or an earlier result's", got=got)
