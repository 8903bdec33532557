"""What VBench says of stored videos: one process of its Python a dimension; what is scored stays."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dvdq_eval.digests import digests
from dvdq_eval.progress import Tell
from dvdq_eval.records import find_record, write_record
from dvdq_eval.vbench.dimensions import DIMENSIONS, Dimension, entry, jobs_of
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.study import CODEC, OPERATION, Asked, Coverage, coverage, stage
from dvdq_eval.vbench.weights import FILES, is_path_check
from dvdq_eval.videos.store import MethodFolder
from dvdq_eval.videos.study import Study
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Score:
    """One dimension over the videos of one method, as VBench's own code gave it: those that were scored last.

    Attributes:
        dimension: e.g. ``imaging_quality``.
        score: VBench's aggregate, 0 to 1, over the videos that there are; null if it is not a number.
        videos: by the name of the job, VBench's value of each video on the aggregate's scale; null where it is not a
            number.
        failed: names of the jobs whose generation failed: they have no value, and the report counts them.
        path_check: whether the judge's weights were random: then the score shows that the code runs, and no more.
        fps: of the files that were scored, and ``codec``, what they were written in.
        inputs: a hash of all that decides the score: files, prompts, frame rate, the dimension's weights, device and
            versions; another one is scored anew.
        seconds: that it took.
        versions: of VBench, torch, torchvision and Python in its environment, and the ``device`` that it ran on.
    """

    dimension: str
    score: float | None
    videos: dict[str, float | None]
    failed: tuple[str, ...]
    path_check: bool
    fps: float
    codec: str
    inputs: str
    seconds: float
    versions: dict[str, str]


def scores_of(folder: MethodFolder) -> dict[str, Score]:
    """The scores that a method has, by dimension, in the order of :data:`DIMENSIONS`."""
    read = {name: find_record(folder.folder / f"vbench-{name}.json", Score) for name in DIMENSIONS}
    return {name: score for name, score in read.items() if score is not None}


def keep_score(folder: MethodFolder, score: Score) -> None:
    """Write a score, in place of an earlier one of its dimension."""
    write_record(folder.folder / f"vbench-{score.dimension}.json", score)


@dataclass(frozen=True)
class Judges:
    """How VBench is run.

    Attributes:
        installed: by which Python.
        weights: folder of the judges' weights.
        fps: frames a second that videos are said to have: ``dynamic_degree`` looks at eight of a second.
        device, threads: of torch.
        timeout: seconds that loading a judge may take, and each video.
    """

    installed: Installed
    weights: Path
    fps: float
    device: str = "cpu"
    threads: int = 1
    timeout: float = 1800.0


def score_all(asked: Asked, judges: Judges, tell: Tell) -> None:
    """Score every method in every dimension that has no score of these very inputs; call :func:`check_videos` first.

    Files are staged in a fresh temporary folder for each method, and as large as the stored ones.

    Raises:
        DvdqError: VBench fails or is too slow, or random weights would replace a score by real ones.
    """
    for method in asked.methods:
        folder = asked.folder(method)
        assert folder is not None
        with tempfile.TemporaryDirectory(prefix="dvdq-vbench-") as staged:
            for dimension in asked.dimensions:
                found = coverage(folder, jobs_of(asked.study, dimension))
                inputs = inputs_of(asked.study, folder, dimension, found, judges)
                earlier = scores_of(folder).get(dimension.name)
                if earlier is None or earlier.inputs != inputs:
                    title = f"{method.title}: {dimension.name}"
                    if earlier is not None and not earlier.path_check and is_path_check(dimension.name, judges.weights):
                        expected = "no score by real weights for a path check to replace"
                        raise DvdqError(OPERATION, where=title, expected=expected, got=f"one in {folder.folder}")
                    score = _score(asked.study, folder, dimension, found, judges, inputs, Path(staged), title, tell)
                    keep_score(folder, score)


def _score(
    study: Study,
    folder: MethodFolder,
    dimension: Dimension,
    found: Coverage,
    judges: Judges,
    inputs: str,
    staged: Path,
    title: str,
    tell: Tell,
) -> Score:
    total = len(found.there)
    tell(title, 0, total)
    started = time.perf_counter()
    paths = {job: staged / f"{job.name}.mp4" for job in found.there}
    for job, path in paths.items():
        if not path.exists():
            stage(folder.folder / f"{job.name}.mkv", path, judges.fps)
    value, values = judges.installed.score(
        dimension,
        [entry(study, job, dimension, str(path)) for job, path in paths.items()],
        title=title,
        weights=judges.weights,
        device=judges.device,
        threads=judges.threads,
        timeout=judges.timeout,
        on_video=lambda done: tell(title, done, total),
    )
    return Score(
        dimension=dimension.name,
        score=value,
        videos={job.name: values.get(str(path)) for job, path in paths.items()},
        failed=tuple(job.name for job in found.failed),
        path_check=is_path_check(dimension.name, judges.weights),
        fps=judges.fps,
        codec=CODEC,
        inputs=inputs,
        seconds=round(time.perf_counter() - started, 3),
        versions={**judges.installed.versions, "device": judges.device},
    )


def inputs_of(study: Study, folder: MethodFolder, dimension: Dimension, found: Coverage, judges: Judges) -> str:
    """A hash of all that a score depends on."""
    videos = digests([folder.folder / f"{job.name}.mkv" for job in found.there])
    files = {job.name: digest for job, digest in zip(found.there, videos, strict=True)}
    weights = [file.path for file in FILES[dimension.name]]
    values = {
        "entries": [entry(study, job, dimension, files[job.name]) for job in found.there],
        "failed": [job.name for job in found.failed],
        "weights": dict(zip(weights, digests([judges.weights / path for path in weights]), strict=True)),
        "path_check": is_path_check(dimension.name, judges.weights),
        "fps": judges.fps,
        "codec": CODEC,
        "device": judges.device,
        "versions": judges.installed.versions,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
