"""Files and folders that are complete or not there: written under another name, then renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvdq_models.files.destinations import check_new_folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that becomes ``folder``, which must not exist, if the block succeeds, and vanishes if it does not."""
    folder = check_new_folder("save", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = _beside(folder)
    staging.mkdir()
    try:
        yield staging
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextmanager
def new_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A name, of the same ending, for a file that becomes ``path`` if the block succeeds and vanishes if it does not.

    Args:
        path: of the file; one that is there is replaced. Its folder is made.
        durable: whether to wait until its bytes are on the disk before it gets its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        yield part
        if durable:
            sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write ``text`` in UTF-8, at once."""
    with new_file(path, durable=durable) as part:
        part.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; a folder only where the system can say so, which Windows cannot."""
    if not path.is_dir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """A name that nobody else writes to, and that nobody takes for the result."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
