"""Text and JSON as people's editors leave them: UTF-8, with or without a mark, or UTF-16 or UTF-32 with one."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from dvdq_reference.spec.errors import DvdqError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LARGEST = 2**28
"""Bytes. What is larger is no configuration, and is not read to find out."""


def read_text(operation: str, path: Path, expected: str) -> str:
    """The text of a file.

    Args:
        operation: for errors.
        path: of the file.
        expected: what it should be, for errors.

    Raises:
        DvdqError: a file that cannot be read, is larger than any text for us, or is in an encoding that does not say
            which it is.
    """
    try:
        if path.stat().st_size > _LARGEST:
            got = f"{path.stat().st_size:,} bytes"
            raise DvdqError(operation, where=str(path), expected=expected, got=got)
        data = path.read_bytes()
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
        if "\0" in text:
            raise UnicodeError("UTF-16 without a byte order mark, or no text")
    except (OSError, UnicodeError) as error:
        raise DvdqError(operation, where=str(path), expected=f"{expected}, in UTF-8", got=one_line(error)) from error
    return text


def read_json(operation: str, path: Path) -> dict[str, Any]:
    """The object in a JSON file; anything else is a :class:`DvdqError`."""
    values = parse_json(operation, path)
    if not isinstance(values, dict):
        raise DvdqError(operation, where=str(path), expected="a JSON object", got=type(values).__name__)
    return values


def parse_json(operation: str, path: Path) -> Any:
    """Whatever a JSON file holds; another file is a :class:`DvdqError`."""
    text = read_text(operation, path, "JSON")
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        raise DvdqError(operation, where=str(path), expected="JSON", got=one_line(error)) from error


def one_line(error: BaseException) -> str:
    """What an error of another library says, or, if it says nothing, what it is called; its first line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
