"""Tiles that were measured to be fast, which a backend keeps as data in its ``picks.json``.

The file holds runs of the tuning script, later ones before earlier ones. A run is::

    {"device": "NVIDIA H100 80GB HBM3", "capability": 90, "date": "2026-11-22", "commit": "44acc4c",
     "versions": {"torch": "2.11.0+cu130", "triton": "3.6.0"},
     "unpack_from": 256,
     "rows": [{"task": {…}, "config": {…}, "microseconds": 7012.5}, …]}

with the fields of the backend's own ``Task`` and ``Config`` in each row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar


class Classed(Protocol):
    """A task, many of which share a pick."""

    def shape_class(self) -> Any:
        """What tasks that share a pick have in common."""


Task = TypeVar("Task", bound=Classed)
Config = TypeVar("Config")


@cache
def measured(
    path: Path, device: str | None, task: Callable[..., Task], config: Callable[..., Config]
) -> tuple[dict[Task, Config], int | None]:
    """The config of each class of shapes on GPUs of that name, and from how many tokens weights are unpacked there.

    Args:
        path: the file.
        device: a GPU's name; None is one that nobody measured.
        task: makes a task of its fields.
        config: makes a config of its fields and of ``source``, which says where it was measured.
    """
    configs: dict[Task, Config] = {}
    threshold: int | None = None
    for run in json.loads(path.read_text())["runs"]:
        if run["device"] == device:
            threshold = run.get("unpack_from", threshold)
            source = {"source": f"measured on {run['device']}, {run['date']}"}
            configs |= {task(**row["task"]).shape_class(): config(**row["config"] | source) for row in run["rows"]}
    return configs, threshold


def power_of_two(size: int) -> int:
    """The least that is not below ``size``."""
    return 1 << max(0, size - 1).bit_length()
