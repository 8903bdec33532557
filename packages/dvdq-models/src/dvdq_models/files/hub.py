"""Parts of a repository on the hub, downloaded into its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_id(source: str | Path) -> bool:
    """Whether ``source`` is no path that exists and has the form of a hub id, ``org/name``."""
    return not os.path.exists(source) and _ID.fullmatch(str(source)) is not None


def download(operation: str, repository: str, patterns: Sequence[str]) -> Path:
    """The folder of the cache with the files of ``repository`` that match ``patterns``; pickles are never fetched.

    Raises:
        DvdqError: no such repository, or a hub that cannot be reached; says that it is no path here either.
    """
    try:
        folder = snapshot_download(
            repository, allow_patterns=list(patterns), ignore_patterns=["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"]
        )
    # Whatever goes wrong on the way: the client lets errors of its own, of HTTP and of the operating system through.
    except Exception as error:
        expected, got = "a path that exists here, or a repository of the hub within reach", one_line(error)
        raise DvdqError(operation, where=repository, expected=expected, got=got) from error
    return Path(folder)
