"""Names that are to be written: all that can be known of them before work that would be lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError

_MARGIN = 24
"""What is put around a name while its file or folder is unfinished, in bytes."""


def check_new_folder(operation: str, folder: Path) -> Path:
    """``folder`` as an absolute path, links in it not resolved.

    Raises:
        DvdqError: something of that name, be it a link into nowhere, or a place where nothing can be made.
    """
    place = _absolute(operation, folder)
    if os.path.lexists(place):
        got = "a link" if os.path.islink(place) else "one that does"
        raise DvdqError(operation, where=str(folder), expected="a folder that does not exist yet", got=got)
    _check_place(operation, place)
    return place


def check_new_file(operation: str, path: Path, endings: Collection[str], *, replace: bool = False) -> Path:
    """``path`` as an absolute path.

    Args:
        operation: for errors.
        path: of the file to be.
        endings: one of which its name must have, e.g. ``(".mp4",)``; any, if there are none.
        replace: whether a file of that name may be there.

    Raises:
        DvdqError: another ending, a folder, a file that may not be replaced, or a place where nothing can be made.
    """
    place = _absolute(operation, path)
    if endings and place.suffix.lower() not in endings:
        got = place.suffix or "none"
        raise DvdqError(operation, where=str(path), expected=f"the ending {' or '.join(endings)}", got=got)
    if os.path.isdir(place):
        raise DvdqError(operation, where=str(path), expected="a file to write", got="a folder")
    if os.path.lexists(place) and not (replace and os.path.isfile(place)):
        raise DvdqError(operation, where=str(path), expected="a file that does not exist yet", got="one that does")
    _check_place(operation, place)
    return place


def check_space(operation: str, place: Path, needed: int) -> None:
    """A :class:`DvdqError` if the disk that ``place`` would lie on has fewer than ``needed`` bytes free."""
    free = shutil.disk_usage(_existing(place)).free
    if needed > free:
        raise DvdqError(operation, where=str(place), expected=f"{needed:,} bytes free", got=f"{free:,}")


def _absolute(operation: str, path: Path) -> Path:
    try:
        if "\0" in str(path):
            raise ValueError("a NUL in it")
        place = Path(os.path.abspath(path))
        str(place).encode()
    except ValueError as error:  # what is written there could not be read: safetensors opens names in UTF-8 alone
        raise DvdqError(operation, where=repr(str(path)), expected="a path in UTF-8", got=one_line(error)) from error
    return place


def _existing(place: Path) -> Path:
    return next(parent for parent in place.parents if os.path.lexists(parent))


def _check_place(operation: str, place: Path) -> None:
    parent = _existing(place)
    if not os.path.isdir(parent):
        got = "a file" if os.path.exists(parent) else "a link into nowhere"
        raise DvdqError(operation, where=str(parent), expected="a folder to write in", got=got)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise DvdqError(operation, where=str(parent), expected="a folder to write in", got="one without permission")
    try:
        os.lstat(place.with_name("." * _MARGIN + place.name))
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, for one
        got = error.strerror or one_line(error)
        raise DvdqError(operation, where=str(place), expected="a name that can be written", got=got) from error
