"""SHA-256 of files, which is not taken again while a file keeps its size and the time at which it was changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from dvdq_eval.environments import cache_folder
from dvdq_eval.progress import Tell, silent
from dvdq_eval.records import write_record

REMEMBERED = 2**26
"""Bytes from which on a file's hash is also kept on disk: forty gigabytes take minutes to read."""


class _Known(msgspec.Struct, frozen=True, array_like=True):
    size: int
    changed: int
    digest: str


def digests(files: Sequence[Path], tell: Tell = silent) -> list[str]:
    """The hash of each file in hexadecimal; ``tell`` is told of the megabytes that are read."""
    whole = [(path.resolve(), path.stat()) for path in files]
    total, done, found = sum(status.st_size for _, status in whole) // 10**6, 0, []
    for path, status in whole:
        tell("Hashing", done // 10**6, total)
        found.append(_digest(path, status.st_size, status.st_mtime_ns))
        done += status.st_size
    tell("Hashing", total, total)
    return found


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    if size < REMEMBERED:
        return _read(path)
    place = cache_folder() / "digests.json"
    known = _remembered(place)
    entry = known.get(str(path))
    if entry is None or (entry.size, entry.changed) != (size, changed):
        entry = _Known(size, changed, _read(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have added its own meanwhile; of two at once one is taken again, which is slow but right.
        write_record(place, {**_remembered(place), str(path): entry})
    return entry.digest


def _remembered(place: Path) -> dict[str, _Known]:
    """What is there; a file that something else wrote is as good as none."""
    try:
        return msgspec.json.decode(place.read_bytes(), type=dict[str, _Known])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
