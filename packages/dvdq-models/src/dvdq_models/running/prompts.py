"""Prompts from a text file."""

from __future__ import annotations

import re
from pathlib import Path

from dvdq_models.files.text import read_text


def read_prompts(operation: str, path: Path) -> tuple[str, ...]:
    """One prompt a line; empty lines are left out, and a file that is no text is a :class:`DvdqError`.

    A line ends where an editor ends it, not at a separator such as U+2028, which ``splitlines`` takes for an end too.
    """
    lines = re.split(r"\r\n|\n|\r", read_text(operation, path, "a text file of prompts"))
    return tuple(line.strip() for line in lines if line.strip())
