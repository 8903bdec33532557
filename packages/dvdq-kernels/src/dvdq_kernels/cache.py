"""Compiled kernels on disk: ``$DVDQ_KERNELS_CACHE``, else ``~/.cache/dvdq-kernels``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile


def cached(suffix: str, key: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """The file that ``make`` writes for ``key``, which has to name all that it depends on; made once.

    It appears whole or not at all, whoever else makes it at the same time.
    """
    folder = Path(os.environ.get("DVDQ_KERNELS_CACHE") or Path.home() / ".cache" / "dvdq-kernels")
    path = folder / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + suffix)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, suffix=suffix, delete=False) as file:
            unfinished = Path(file.name)
        try:
            make(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path
