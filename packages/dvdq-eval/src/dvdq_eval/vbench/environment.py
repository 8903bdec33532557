"""VBench's own Python: it pins packages that this project's newer ones do not go with. Also random weights for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dvdq_eval.environments import environment_folder, make_environment, named_python, python_in
from dvdq_eval.json_lines import Script
from dvdq_eval.records import complete_folder
from dvdq_eval.vbench.weights import MARKER
from dvdq_reference.spec.errors import DvdqError

OPERATION = "VBench's environment"
PYTHON_VARIABLE = "VBENCH_PYTHON"
"""Names an interpreter that has VBench, to take instead of making an environment."""
SERIES = "3.11"
"""Of Python: tokenizers 0.13.3, which VBench's transformers asks for, is built for none after it."""

LOCK = Path(__file__).with_name("lock.txt")
# Each without its dependencies but torch, as no resolver accepts what VBench and its judges say that they need.
INSTALLS = (("torch==2.13.0",), ("--no-deps", "torchvision==0.28.0"), ("--no-deps", "-r", str(LOCK)))


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
        python = make_environment(OPERATION, _folder(), INSTALLS, _checked(base))
    return python


def vbench_python() -> Path:
    """VBench's Python, which has been set up.

    Raises:
        DvdqError: it has not.
    """
    python = _found()
    if python is None:
        raise DvdqError(OPERATION, where=str(_folder()), expected="what `dvdq-eval vbench setup` makes", got="nothing")
    return python


def _folder() -> Path:
    return environment_folder("vbench", requirements())


def _found() -> Path | None:
    made = python_in(_folder())
    return named_python(OPERATION, PYTHON_VARIABLE) or (made if made.is_file() else None)


def _checked(base: Path | None) -> Path:
    python = base or Path(sys.executable)
    if not os.access(python, os.X_OK) or not python.is_file():
        raise DvdqError(OPERATION, where="--python", expected="an interpreter", got=str(python))
    asked = [str(python), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(asked, capture_output=True, text=True)
    version = done.stdout.strip()
    if version != SERIES:
        got = f"{python}, which is {version}" if version else f"{python}, which is none"
        raise DvdqError(OPERATION, expected=f"a Python {SERIES}: --python PATH names another", got=got)
    return python


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
