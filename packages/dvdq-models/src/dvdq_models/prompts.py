"""Prompts from a text file."""

from __future__ import annotations

from pathlib import Path

from dvdq_reference.spec.errors import DvdqError


def read_prompts(operation: str, path: Path) -> tuple[str, ...]:
    """One prompt a line; empty lines are left out, and a file that is no text is a :class:`DvdqError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DvdqError(operation, where=str(path), expected="a text file of prompts", got=str(error)) from error
    return tuple(line.strip() for line in lines if line.strip())
