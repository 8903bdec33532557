"""``SHA256SUMS``: the digest of each weight file of a folder, in the format of sha256sum(1).

It is a file of its own because what stands in ``config.json`` follows a model to wherever it is saved next, and digests
of other files with it. A folder without it, as diffusers writes one, is taken as it is.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dvdq_models.files.text import read_text
from dvdq_reference.spec.errors import DvdqError

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write_sums(folder: Path) -> None:
    """List every weight file of ``folder``; ``sha256sum -c SHA256SUMS`` in it checks them."""
    lines = [f"{sha256(file)}  {file.name}\n" for file in sorted(folder.glob("*.safetensors"))]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def listed_sums(operation: str, folder: Path) -> dict[str, str]:
    """The digests that ``SHA256SUMS`` of ``folder`` lists, by file name; none if there is no such file."""
    path = folder / SUMS
    listed: dict[str, str] = {}
    text = read_text(operation, path, "lines as sha256sum writes them") if path.is_file() else ""
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise DvdqError(operation, where=str(path), expected="lines as sha256sum writes them", got=repr(line))
        listed[match[2]] = match[1]
    return listed


def check_sums(operation: str, folder: Path) -> None:
    """Compare the weight files of ``folder`` with its ``SHA256SUMS``, if it has one.

    Raises:
        DvdqError: a line that is none, a weight file that is listed and missing or there and not listed, or one whose
            digest is another (named).
    """
    if not (folder / SUMS).is_file():
        return
    listed = listed_sums(operation, folder)
    present = {file.name for file in folder.glob("*.safetensors")}
    if present != {name for name in listed if name.endswith(".safetensors")}:
        raise DvdqError(operation, where=str(folder), expected=f"files {sorted(listed)}", got=sorted(present))
    for name in sorted(present):
        check_sum(operation, folder / name, listed[name])


def check_sum(operation: str, path: Path, expected: str) -> None:
    """A :class:`DvdqError` unless a file has this digest."""
    found = sha256(path)
    if found != expected:
        got = f"{found[:12]}…, {path.stat().st_size} bytes"
        raise DvdqError(operation, where=str(path), expected=f"SHA-256 {expected[:12]}…", got=got)


def sha256(path: Path) -> str:
    """The digest of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
