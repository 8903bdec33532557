"""Where an unfinished result lies, and what of it is done: ``.DST.part`` beside DST.

It holds ``result``, which becomes DST by one rename, or the one file in it does; ``identity.json``, what it is made of;
``journal``, one line for each part that is on the disk; and a lock. A part is named in the journal only after its bytes
are synced, so whatever kills the process, the next run does again what is not named and nothing else.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from dvdq_models.files.atomic import sync, write_text
from dvdq_models.files.destinations import check_new_file, check_new_folder, check_space
from dvdq_models.files.text import read_json
from dvdq_reference.spec.errors import DvdqError

_IDENTITY = "identity.json"


class Workspace:
    """The workspace of one destination, locked while it is open.

    Args:
        operation: for errors.
        destination: the folder or file to be; must not exist.
        identity: of the work, JSON-ready; one that is resumed must have the same.
        restart: discard what another run left.
        replace: whether a file may be there, until the work is done.
        file: the name in ``result`` of what becomes the destination, if it is a file.

    Raises:
        DvdqError: on entering, a destination that exists, another process at work on it, or the remains of a run of
            another identity; on leaving, a full disk.
    """

    def __init__(
        self,
        operation: str,
        destination: Path,
        identity: dict[str, Any],
        *,
        restart: bool = False,
        replace: bool = False,
        file: str | None = None,
    ) -> None:
        self.destination, self.identity, self._restart, self._file = destination, identity, restart, file
        self._operation, self._replace = operation, replace
        self.folder = _folder(destination)
        self.result = self.folder / "result"
        self.product = self.result / file if file else self.result
        self.done: frozenset[str] = frozenset()
        self.finished = self._published = False
        self._identity, self._journal = self.folder / _IDENTITY, self.folder / "journal"
        self._lock = FileLock(self.folder / "lock")

    def __enter__(self) -> Self:
        check_destination(self._operation, self.destination, file=self._file is not None, replace=self._replace)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            expected, got = "no other process", "another at work"
            raise DvdqError(self._operation, where=str(self.destination), expected=expected, got=got) from error
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self._lock.release()
        if self._published:  # unlocked first: Windows keeps a file that is open
            (self.folder / "lock").unlink(missing_ok=True)
            self._identity.unlink(missing_ok=True)
            self.folder.rmdir()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            expected = "room on the disk; the same command goes on where this one stopped"
            raise DvdqError(self._operation, where=str(self.folder), expected=expected, got=error.strerror) from error

    def check_space(self, needed: int) -> None:
        """A :class:`DvdqError` unless what is missing of a result of ``needed`` bytes fits on the disk."""
        # Windows does not say how much of a file is on the disk.
        there = sum(getattr(f.stat(), "st_blocks", 0) * 512 for f in self.result.rglob("*") if f.is_file())
        check_space(self._operation, self.folder, needed - there)

    def record(self, names: Iterable[str]) -> None:
        """Note that parts are done; their bytes must be on the disk."""
        with self._journal.open("a", encoding="ascii", newline="\n") as file:
            file.writelines(f"{json.dumps(name)}\n" for name in names)
            file.flush()
            os.fsync(file.fileno())

    def publish(self) -> None:
        """Give the result its name, and remove the rest."""
        if not self.finished:
            for file in self.result.rglob("*"):
                if file.is_file():
                    sync(file)
            self.product.replace(self.destination)
            sync(self.destination.parent)
        if self._file:
            shutil.rmtree(self.result, ignore_errors=True)
        self._journal.unlink(missing_ok=True)
        self._published = True

    def _take_up(self) -> None:
        left = read_json(self._operation, self._identity) if self._identity.is_file() else None
        if self.destination.exists():
            if left == self.identity and not self.product.exists():
                self.finished = True
                return
            _check_new(self._operation, self.destination, file=self._file is not None, replace=self._replace)
        if left is not None and left != self.identity and not self._restart:
            changed = ", ".join(key for key in self.identity if left.get(key) != self.identity[key])
            expected = "the work that was begun there, or to be told to restart"
            raise DvdqError(self._operation, where=str(self.folder), expected=expected, got=f"another {changed}")
        if left != self.identity or self._restart or not self.product.exists():
            self._identity.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
            shutil.rmtree(self.result, ignore_errors=True)
            self.result.mkdir()
            if self._file:  # where it is missing, it has got its name
                self.product.touch()
            write_text(self._identity, json.dumps(self.identity, indent=2, sort_keys=True), durable=True)
        text = self._journal.read_text(encoding="ascii") if self._journal.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            os.truncate(self._journal, len(whole))
        self.done = frozenset(map(json.loads, whole.splitlines()))


def check_destination(operation: str, destination: Path, *, file: bool = False, replace: bool = False) -> Path:
    """The destination, a folder or a ``.safetensors`` file, as an absolute path.

    Raises:
        DvdqError: one that exists, unless a run was killed just after it gave it its name, or ``replace`` allows for a
            file; one that cannot be made.
    """
    place = Path(os.path.abspath(destination))
    if place.name and (_folder(place) / _IDENTITY).is_file():
        return place
    return _check_new(operation, destination, file=file, replace=replace)


def stamp(file: Path) -> list[int]:
    """What changes if a file does: its size, and the time of its last change."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _check_new(operation: str, destination: Path, *, file: bool, replace: bool) -> Path:
    if file:
        return check_new_file(operation, destination, (".safetensors",), replace=replace)
    return check_new_folder(operation, destination)


def _folder(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.part")
