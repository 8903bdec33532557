"""A folder that is complete or not there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvdq_models.files.destinations import check_new_folder


@contextmanager
def complete_or_nothing(folder: Path) -> Iterator[Path]:
    """A staging folder that becomes ``folder`` if the block succeeds, and vanishes if it does not."""
    folder = check_new_folder("save", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    staging.mkdir()
    try:
        yield staging
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
