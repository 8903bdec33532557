"""Where a result comes from, and the device that it was made on: its name, what full precision is there, its memory."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import dvdq_eval
from dvdq_kernels import backends
from dvdq_reference.spec.errors import DvdqError

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


def open_device(operation: str, name: str) -> torch.device:
    """``cpu`` or ``cuda``, if it is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DvdqError(operation, where="--device", expected="a CUDA device", got="none here")
    return torch.device(name)


def dtype_on(device: torch.device) -> torch.dtype:
    """Of full precision: float32 on a CPU, bfloat16 on a GPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def provenance_on(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit; ``device`` is the name of the processor or the GPU."""
    origin = provenance()
    return origin | {"device": origin["processor"] if device.type == "cpu" else torch.cuda.get_device_name(device)}


def peak_bytes(device: torch.device, call: Callable[[], object]) -> int | None:
    """Memory of a GPU that ``call`` takes at most beside what was taken before it; None on a CPU, which does not count.

    What other models hold there is not part of it.
    """
    if device.type == "cpu":
        call()
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def let_go(device: torch.device) -> None:
    """Give back the memory of models that nobody holds; diffusers' hooks are cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
