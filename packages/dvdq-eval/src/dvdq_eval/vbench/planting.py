"""A folder of random weights, with which VBench's real code runs and says nothing."""

from __future__ import annotations

from pathlib import Path

from dvdq_eval.json_lines import Script
from dvdq_eval.staging import complete_folder
from dvdq_eval.vbench.weights import MARKER

_SCRIPT = Path(__file__).with_name("plant.py")
_SECONDS = 1800.0
"""That it may take."""


def plant(python: Path, folder: Path) -> None:
    """Random weights for every dimension into a new folder, marked as such: complete or not at all.

    Planted weights that are there already stay.

    Raises:
        DvdqError: the folder holds something else, or VBench's code did not build its models.
    """
    if (folder / MARKER).exists():
        return
    with complete_folder(folder, frozenset()) as fresh:
        said = Script(python, _SCRIPT).run(
            {"cache": str(fresh), "threads": 1},
            operation="vbench plant",
            where=str(folder),
            expected="random weights",
            timeout=_SECONDS,
        )
        list(said)
        (fresh / MARKER).write_text("These weights are random: they show that VBench runs, and no more.\n")
