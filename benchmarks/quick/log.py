"""What a run finds, a line of JSON each, on disk before anything else happens. The standard library alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Log:
    """The file ``quick.jsonl`` of a folder, to which several processes append."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "quick.jsonl"

    def write(self, stage: str, **found: Any) -> None:
        """Appends a line, and prints the beginning of it."""
        line = json.dumps({"at": round(time.time(), 1), "stage": stage, **found}, default=str)
        with self.path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        if "begins" not in found:
            print(line[:240], flush=True)

    def read(self, stage: str | None = None) -> list[dict[str, Any]]:
        """All lines, or those of a stage."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = [json.loads(line) for line in lines]
        return [line for line in found if stage in (None, line["stage"])]

    def begun(self, stage: str) -> list[str]:
        """The steps that a stage began, in order."""
        return [line["begins"] for line in self.read(stage) if "begins" in line]

    def unfinished(self, stage: str) -> str | None:
        """The step that a stage began last, if it did not end it."""
        begun, ended = self.begun(stage), {line["step"] for line in self.read(stage) if "step" in line}
        return begun[-1] if begun and begun[-1] not in ended else None
