"""Where a result comes from."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import dvdq_eval
from dvdq_kernels import backends

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "scikit-image", "av")


def provenance() -> dict[str, Any]:
    """Versions, machine and, in a checkout of the project, the commit."""
    return {
        "dvdq": dvdq_eval.__version__,
        "commit": _commit(Path(dvdq_eval.__file__).parent),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "backends": {name: why or "available" for name, why in backends().items()},
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    """None of what is not installed: what a measurement did not need must not cost it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of the project's own checkout around ``folder``, with ``-dirty`` if files differ from it.

    In a copy without its repository, what ``BENCHMARK_COMMIT`` says.
    """
    if said := os.environ.get("BENCHMARK_COMMIT"):
        return said

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or not (Path(top) / "packages/dvdq-eval").is_dir():
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
