"""Runs of the streaming quantizer that are killed: ``killed_runs.py SOURCE FOLDER COUNT`` writes ``FOLDER/0`` to ….

Each run is a fork of this process, which has imported everything and computed nothing, and kills itself with SIGKILL at
a call or return of Python or C code that is drawn with a seed from all those of a whole run, from the moment it opens
its workspace. Prints how many calls and returns there were, and at which each run died.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from dvdq_models import Recipe
from dvdq_models.files.workspace import Workspace
from dvdq_models.streaming import quantize_checkpoint, tasks

COMMIT_BYTES = 100_000


def run(source: Path, destination: Path, dies_at: int | None) -> int:
    """Quantize in this process; how many calls and returns it took."""
    events = 0

    def count(*_: Any) -> None:
        nonlocal events
        events += 1
        if events == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    enter = Workspace.__enter__

    def counted(self: Workspace) -> Workspace:
        sys.setprofile(count)
        return enter(self)

    Workspace.__enter__ = counted  # type: ignore[method-assign]
    tasks.COMMIT_BYTES = COMMIT_BYTES
    torch.set_num_threads(1)
    gc.disable()  # what it calls is called at another moment in each run
    quantize_checkpoint(source, destination, Recipe.named("dvd-quant", "W4A6"), backend="torch")
    sys.setprofile(None)
    return events


def in_fork(source: Path, destination: Path, dies_at: int | None) -> tuple[int, int]:
    """The status that a run ended with, and its calls and returns if it was not killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, run(source, destination, dies_at).to_bytes(8, "little"))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        events = int.from_bytes(pipe.read(), "little")
    return os.waitpid(child, 0)[1], events


def main(source: Path, folder: Path, count: int) -> None:
    """One whole run, then those that die."""
    status, total = in_fork(source, folder / "whole", None)
    assert status == 0
    generator = random.Random(0)
    died = []
    for i in range(count):
        died.append(generator.randint(1, total))
        status, _ = in_fork(source, folder / str(i), died[-1])
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
    print(json.dumps({"total": total, "died": died}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
