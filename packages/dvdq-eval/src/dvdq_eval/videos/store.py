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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dvdq_eval.digests import digests
from dvdq_eval.methods import Method
from dvdq_eval.progress import Tell, silent
from dvdq_eval.records import find_record, read_record, replacing, write_record
from dvdq_eval.videos.records import Failure, MethodRecord, Quality, VideoRecord
from dvdq_eval.videos.study import Job, Study
from dvdq_models.running.video import Frames, read_mp4, write_lossless


class Store:
    """The part of a folder that belongs to one study.

    Attributes:
        study: what all its methods share.
        folder: of the study.
    """

    def __init__(self, folder: Path, study: Study, tell: Tell = silent) -> None:
        digests(study.files, tell)  # a large pipeline takes a while to know again
        self.study, self.folder = study, folder / study.key
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "study.json").exists():
            write_record(self.folder / "study.json", {"name": study.name, "fps": study.fps, **study.identity})

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

    def method(self, method: Method) -> MethodFolder:
        """The folder of one method's videos, made if it is not there."""
        folder = self.folder / method.key
        folder.mkdir(exist_ok=True)
        return MethodFolder(folder)


@dataclass(frozen=True)
class StoredVideo:
    """A complete video: its record, what was measured of it, if it was, and its frames' file."""

    record: VideoRecord
    quality: Quality | None
    path: Path

    @property
    def name(self) -> str:
        """Of its job."""
        return self.path.stem


@dataclass(frozen=True)
class MethodFolder:
    """The videos of one method: a folder that is there."""

    folder: Path

    @property
    def about(self) -> MethodRecord | None:
        """What was written of the method, if it was."""
        return find_record(self.folder / "method.json", MethodRecord)

    def describe(self, record: MethodRecord) -> None:
        """Write what there is to say of the method."""
        write_record(self.folder / "method.json", record)

    def has(self, job: Job) -> bool:
        """Whether the video of ``job`` is there: its record is written last."""
        return (self.folder / f"{job.name}.json").exists()

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of ``jobs`` that have no video."""
        return [job for job in jobs if not self.has(job)]

    def keep(self, job: Job, frames: Frames, latents: NDArray[np.float32], record: VideoRecord) -> None:
        """Keep a video; ``frames`` uint8 ``[frames, height, width, 3]``."""
        with replacing(self.folder / f"{job.name}.mkv") as path:
            write_lossless(path, frames)
        with replacing(self.folder / f"{job.name}.npy") as path:
            np.save(path, latents)
        write_record(self.folder / f"{job.name}.json", record)
        self._forget_failure(job)

    def take_over(self, job: Job, files: Mapping[str, bytes]) -> None:
        """Keep a video that another store keeps, by the names and contents of its files."""
        for name in sorted(files, key=lambda name: name == f"{job.name}.json"):
            with replacing(self.folder / name) as path:
                path.write_bytes(files[name])
        self._forget_failure(job)

    def fail(self, job: Job, error: str) -> None:
        """Write down that the video of ``job`` could not be made."""
        write_record(self.folder / f"{job.name}.failed.json", Failure(job.prompt, job.seed, error))

    def failure(self, job: Job) -> Failure | None:
        """Why the video of ``job`` could not be made, if it could not."""
        return find_record(self.folder / f"{job.name}.failed.json", Failure)

    def _forget_failure(self, job: Job) -> None:
        (self.folder / f"{job.name}.failed.json").unlink(missing_ok=True)

    def record(self, job: Job) -> VideoRecord:
        """Where the video of ``job`` comes from."""
        return read_record(self.folder / f"{job.name}.json", VideoRecord)

    def frames(self, job: Job) -> Frames:
        """The frames, bit for bit."""
        return read_mp4(self.folder / f"{job.name}.mkv")

    def latents(self, job: Job) -> NDArray[np.float32]:
        """The final latents."""
        found: NDArray[np.float32] = np.load(self.folder / f"{job.name}.npy", allow_pickle=False)
        return found

    def quality(self, job: Job) -> Quality | None:
        """What was measured, if it was."""
        return find_record(self.folder / f"{job.name}.quality.json", Quality)

    def keep_quality(self, job: Job, quality: Quality) -> None:
        """Keep what was measured."""
        write_record(self.folder / f"{job.name}.quality.json", quality)

    def video(self, job: Job) -> StoredVideo:
        """All that is kept of the video of ``job``, which is there."""
        return self._stored(job.name)

    def videos(self) -> dict[str, StoredVideo]:
        """Every complete video by the name of its job, whatever study asked for it."""
        names = sorted(path.stem for path in self.folder.glob("[!.]*.mkv"))
        return {name: self._stored(name) for name in names if (self.folder / f"{name}.json").exists()}

    def failures(self) -> dict[str, Failure]:
        """Every generation that failed, by the name of its job."""
        paths = sorted(self.folder.glob("[!.]*.failed.json"))
        return {path.name.removesuffix(".failed.json"): read_record(path, Failure) for path in paths}

    def _stored(self, name: str) -> StoredVideo:
        quality = find_record(self.folder / f"{name}.quality.json", Quality)
        return StoredVideo(read_record(self.folder / f"{name}.json", VideoRecord), quality, self.folder / f"{name}.mkv")
