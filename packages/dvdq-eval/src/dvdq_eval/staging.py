"""A folder that appears complete or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvdq_reference.spec.errors import DvdqError


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
