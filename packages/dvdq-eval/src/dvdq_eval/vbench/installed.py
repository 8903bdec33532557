"""VBench's own Python, which pins packages that this project's newer ones do not go with, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dvdq_eval.environments import Script, environment_folder, make_environment, named_python, python_in
from dvdq_eval.records import complete_folder
from dvdq_eval.vbench.dimensions import Dimension, StandardPrompt, standard_prompts
from dvdq_eval.vbench.weights import MARKER
from dvdq_reference.spec.errors import DvdqError

SETTING_UP = "VBench's environment"
PYTHON_VARIABLE = "VBENCH_PYTHON"
"""Names an interpreter that has VBench, to take instead of making an environment."""
SERIES = "3.11"
"""Of Python: tokenizers 0.13.3, which VBench's transformers asks for, is built for none after it."""

LOCK = Path(__file__).with_name("lock.txt")
# Each without its dependencies but torch, as no resolver accepts what VBench and its judges say that they need.
INSTALLS = (("torch==2.13.0",), ("--no-deps", "torchvision==0.28.0"), ("--no-deps", "-r", str(LOCK)))
_SCRIPT = Path(__file__).with_name("plant.py")
_PLANTING = 1800.0
"""That it may take."""
OPERATION = "vbench"
_RUNNER = Path(__file__).with_name("runner.py")
_SECONDS = 120.0
"""That a list of versions may take."""


def requirements() -> tuple[str, ...]:
    """All that is pinned."""
    locked = [line.strip() for line in LOCK.read_text(encoding="utf-8").splitlines()]
    pinned = [line for line in locked if line and not line.startswith("#")]
    return (*INSTALLS[0], *INSTALLS[1][1:], *pinned)


def set_up(base: Path | None = None) -> Path:
    """VBench's Python, its environment made if it is missing: the one of :data:`PYTHON_VARIABLE`, or in the cache.

    Args:
        base: a Python of :data:`SERIES` to make it from; None is the one that runs.

    Raises:
        DvdqError: another Python than that, or an environment that cannot be made; nothing half-made remains.
    """
    python = _found()
    if python is None:
        python = make_environment(SETTING_UP, _folder(), INSTALLS, _checked(base))
    return python


def vbench_python() -> Path:
    """VBench's Python, which has been set up.

    Raises:
        DvdqError: it has not.
    """
    python = _found()
    if python is None:
        raise DvdqError(SETTING_UP, where=str(_folder()), expected="what `dvdq-eval vbench setup` makes", got="nothing")
    return python


def _folder() -> Path:
    return environment_folder("vbench", requirements())


def _found() -> Path | None:
    made = python_in(_folder())
    return named_python(SETTING_UP, PYTHON_VARIABLE) or (made if made.is_file() else None)


def _checked(base: Path | None) -> Path:
    python = base or Path(sys.executable)
    if not os.access(python, os.X_OK) or not python.is_file():
        raise DvdqError(SETTING_UP, where="--python", expected="an interpreter", got=str(python))
    asked = [str(python), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(asked, capture_output=True, text=True)
    version = done.stdout.strip()
    if version != SERIES:
        got = f"{python}, which is {version}" if version else f"{python}, which is none"
        raise DvdqError(SETTING_UP, expected=f"a Python {SERIES}: --python PATH names another", got=got)
    return python


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
            timeout=_PLANTING,
        )
        list(said)
        (fresh / MARKER).write_text("These weights are random: they show that VBench runs, and no more.\n")


@dataclass(frozen=True)
class Installed:
    """VBench as some Python has it."""

    python: Path

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of vbench, torch, torchvision and python."""
        found: dict[str, str] = self._described["versions"]
        return found

    @cached_property
    def prompts(self) -> tuple[StandardPrompt, ...]:
        """VBench's own, of our dimensions."""
        return standard_prompts(self._described["prompts"])

    @cached_property
    def _described(self) -> dict[str, Any]:
        where, expected = str(self.python), "a Python with VBench"
        said = Script(self.python, _RUNNER).run(
            {"operation": "describe"}, operation=OPERATION, where=where, expected=expected, timeout=_SECONDS
        )
        answers = list(said)
        if len(answers) != 1:
            raise DvdqError(OPERATION, where=where, expected=expected, got=f"{len(answers)} answers")
        return answers[0]

    def score(
        self,
        dimension: Dimension,
        entries: Sequence[Mapping[str, Any]],
        *,
        title: str,
        weights: Path,
        device: str,
        threads: int,
        timeout: float,
        on_video: Callable[[int], None],
    ) -> tuple[float | None, dict[str, float | None]]:
        """VBench's aggregate, and its value of each video by path, both 0 to 1; null is no number.

        Args:
            dimension: the judge.
            entries: VBench's list, one video an entry.
            title: for errors.
            weights: the folder of the judges' weights.
            device: for torch.
            threads: of torch.
            timeout: seconds that loading the judge may take, and each video.
            on_video: told how many are done.

        Raises:
            DvdqError: a failure of VBench with the last lines of its standard error, or a timeout.
        """
        with tempfile.TemporaryDirectory(prefix="dvdq-vbench-") as out:
            request = {
                "operation": "score",
                "dimension": dimension.name,
                "device": device,
                "threads": threads,
                "cache": str(weights),
                "out": out,
                "entries": list(entries),
            }
            where, expected = f"{title}: {dimension.name}", f"a score of {len(entries)} videos"
            said = Script(self.python, _RUNNER).run(
                request, operation=OPERATION, where=where, expected=expected, timeout=timeout
            )
            scored: dict[str, Any] | None = None
            with closing(said):
                for line in said:
                    if "done" in line:
                        on_video(line["done"])
                    else:
                        scored = line
        if scored is None:
            raise DvdqError(OPERATION, where=where, expected=expected, got="an end without one")
        return scored["score"], {path: _scaled(value, dimension.unit) for path, value in scored["videos"].items()}


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
