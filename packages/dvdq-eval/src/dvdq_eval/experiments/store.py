"""Where videos are kept: a folder that any number of runs fill, each file complete or not there.

::

    STORE/<study>/study.json                     what every video of it depends on
                 /calibration.safetensors        if a method needed it
                 /deltas/<method>.json           the trials of a switch, and the δ that was chosen
                 /<method>/method.json           the configuration, its size, how long its weights took
                          /<video>.mkv .npy .json the frames (lossless), the final latents, and where they come from
                          /<video>.quality.json  distances from full precision
                          /<video>.failed.json   why there is none, until it is made
                          /vbench-<dimension>.json  what VBench says of the videos
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dvdq_eval.experiments.configuration import Configuration
from dvdq_eval.experiments.study import Job, Study
from dvdq_models.running.video import Frames, read_mp4, write_lossless


class Store:
    """The part of a folder that belongs to one study.

    Attributes:
        folder: of the study.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder = folder / study.key
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "study.json").exists():
            write_json(self.folder / "study.json", {"name": study.name, "fps": study.fps, **study.identity})

    def alone(self, name: str) -> FileLock:
        """A context that one process at a time is in."""
        return FileLock(self.folder / f".{name}.lock")

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The files of these paths in the study's folder, as far as they are there."""
        return {name: path.read_bytes() for name in names if (path := self.folder / name).exists()}

    def take_over(self, files: Mapping[str, bytes]) -> None:
        """Write what another store of the study :meth:`read`."""
        for name, content in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            with replacing(self.folder / name) as path:
                path.write_bytes(content)

    def method(self, configuration: Configuration) -> MethodFolder:
        """The folder of one method's videos."""
        return MethodFolder(self.folder / configuration.key)


class MethodFolder:
    """The videos of one method."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    @property
    def about(self) -> dict[str, Any] | None:
        """What was written of the method, if it was."""
        return read_json(self.folder / "method.json")

    def describe(self, values: Mapping[str, Any]) -> None:
        """Write what there is to say of the method."""
        write_json(self.folder / "method.json", values)

    def has(self, job: Job) -> bool:
        """Whether the video of ``job`` is there: its record is written last."""
        return (self.folder / f"{job.name}.json").exists()

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of ``jobs`` that have no video."""
        return [job for job in jobs if not self.has(job)]

    def keep(self, job: Job, frames: Frames, latents: NDArray[np.float32], record: Mapping[str, Any]) -> None:
        """Keep a video; ``frames`` uint8 ``[frames, height, width, 3]``."""
        with replacing(self.folder / f"{job.name}.mkv") as path:
            write_lossless(path, frames)
        with replacing(self.folder / f"{job.name}.npy") as path:
            np.save(path, latents)
        write_json(self.folder / f"{job.name}.json", record)
        self._forget_failure(job)

    def take_over(self, job: Job, files: Mapping[str, bytes]) -> None:
        """Keep a video that another store keeps, by the names and contents of its files."""
        for name in sorted(files, key=lambda name: name == f"{job.name}.json"):
            with replacing(self.folder / name) as path:
                path.write_bytes(files[name])
        self._forget_failure(job)

    def fail(self, job: Job, error: str) -> None:
        """Write down that the video of ``job`` could not be made."""
        write_json(self.folder / f"{job.name}.failed.json", {"prompt": job.prompt, "seed": job.seed, "error": error})

    def failure(self, job: Job) -> dict[str, Any] | None:
        """Why the video of ``job`` could not be made, if it could not."""
        return read_json(self.folder / f"{job.name}.failed.json")

    def _forget_failure(self, job: Job) -> None:
        (self.folder / f"{job.name}.failed.json").unlink(missing_ok=True)

    def record(self, job: Job) -> dict[str, Any]:
        """Where the video of ``job`` comes from."""
        found = read_json(self.folder / f"{job.name}.json")
        assert found is not None
        return found

    def frames(self, job: Job) -> Frames:
        """The frames, bit for bit."""
        return read_mp4(self.folder / f"{job.name}.mkv")

    def latents(self, job: Job) -> NDArray[np.float32]:
        """The final latents."""
        found: NDArray[np.float32] = np.load(self.folder / f"{job.name}.npy", allow_pickle=False)
        return found

    def quality(self, job: Job) -> dict[str, Any] | None:
        """What was measured, if it was."""
        return read_json(self.folder / f"{job.name}.quality.json")

    def keep_quality(self, job: Job, values: Mapping[str, Any]) -> None:
        """Keep what was measured."""
        write_json(self.folder / f"{job.name}.quality.json", values)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path``, of the same ending and this process's own; its file takes the place if all went well."""
    new = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8, at once or not at all."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Strict JSON, at once or not at all."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_json` wrote; None where nothing is."""
    if not path.exists():
        return None
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
