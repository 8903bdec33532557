"""Make every video that a store's methods lack: in this process, by workers, or by other people's packages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dvdq_eval.machine import provenance
from dvdq_eval.methods import Method
from dvdq_eval.peers.run import PeerSummary, VideoJob, read_video, run_peer
from dvdq_eval.progress import Tell, told
from dvdq_eval.videos.making import Maker
from dvdq_eval.videos.prepare import Pipelines
from dvdq_eval.videos.records import MethodRecord, VideoRecord
from dvdq_eval.videos.store import Store
from dvdq_models.families import family_of
from dvdq_models.running.video import to_bytes
from dvdq_reference.spec.errors import DvdqError

OPERATION = "generate"
HOPELESS = 10
"""Videos in a row whose failures end a run: it is not the videos, then."""
TIMEOUT = 7200.0
"""Seconds that a peer may take for one video: a big model on a CPU."""


class Streak:
    """Counts the failures since the last video."""

    def __init__(self) -> None:
        self._failed = 0

    def made(self) -> None:
        """A video was made."""
        self._failed = 0

    def failed(self, error: str) -> None:
        """One was not: the last of :data:`HOPELESS` in a row is a :class:`DvdqError`."""
        self._failed += 1
        if self._failed >= HOPELESS:
            raise DvdqError(OPERATION, expected="videos", got=f"{HOPELESS} failures in a row, the last: {error}")


def fill(
    store: Store,
    methods: Sequence[Method],
    tell: Tell,
    *,
    workers: int = 1,
    address: str | None = None,
    threads: int | None = None,
    pipelines: Pipelines | None = None,
) -> int:
    """Make what is missing, and give the number of videos that could not be made.

    A video depends on its study, method, prompt, seed and, in the last bits, on ``threads``: the same videos result
    from any number of workers in any order, and a run that was stopped goes on with what is there. A video that fails
    leaves ``<video>.failed.json`` and the others are made; the next run tries it again. A worker that dies loses the
    video that it was at; one at which a video failed is replaced, as its device may be in no state to go on. Other
    people's packages run in this process, after the workers, and their failure ends the run.

    Args:
        store: of the study; this process alone writes there.
        methods: each δ is tuned first if it is to reach an average.
        tell: told of progress.
        workers: how many; each has a pipeline, on a GPU of its own if the study runs on one. One worker and no address
            is this process.
        address: of a Ray cluster; None starts one on this machine.
        threads: of a CPU, for each worker; None is torch's choice here, and one there.
        pipelines: that this process uses and afterwards still has loaded; None lets go of its own.

    Raises:
        DvdqError: a device with a number where workers get one each, no Ray, workers that cannot start, a peer that
            fails, or :data:`HOPELESS` videos in a row that do.
    """
    ours, theirs = ([m for m in methods if (m.peer is None) is own] for own in (True, False))
    failures = 0
    if workers == 1 and address is None:
        if threads is not None:
            torch.set_num_threads(threads)
        pipelines, streak = pipelines or Pipelines(store, tell), Streak()
        failures = sum(_make_here(store, pipelines, method, streak, tell) for method in ours)
    elif ours:
        device = store.study.device
        if device not in ("cpu", "cuda"):
            raise DvdqError(OPERATION, where="--device", expected="cpu or cuda, of which a worker gets one", got=device)
        try:
            from dvdq_eval.videos.scale.run import make_by_workers
        except ImportError as error:
            expected = "Ray, for workers: pip install 'dvdq-eval[scale]'"
            raise DvdqError(OPERATION, expected=expected, got=str(error)) from error
        failures = make_by_workers(store, ours, tell, workers=workers, address=address, threads=threads or 1)
    for method in theirs:
        make_videos_by_peer(store, method, tell)
    return failures


def fill_wholly(store: Store, methods: Sequence[Method], tell: Tell, operation: str, **how: Any) -> None:
    """:func:`fill`, which must leave no video missing.

    Raises:
        DvdqError: some could not be made.
    """
    if failures := fill(store, methods, tell, **how):
        expected = f"{len(methods) * len(store.study.jobs)} videos"
        raise DvdqError(operation, where=str(store.folder), expected=expected, got=f"{failures} .failed.json")


def _make_here(store: Store, pipelines: Pipelines, method: Method, streak: Streak, tell: Tell) -> int:
    ready = pipelines.tuned(method)
    folder = store.method(ready)
    jobs, failures = folder.missing(store.study.jobs), 0
    maker = Maker(pipelines, ready) if jobs or folder.about is None else None
    for job in told(tell, f"{ready.title}: generating", jobs):
        assert maker is not None
        try:
            maker.make(job)
        except Exception as error:
            failures += 1
            folder.fail(job, said := f"{type(error).__name__}: {error}")
            streak.failed(said)
        else:
            streak.made()
    return failures


def make_videos_by_peer(store: Store, method: Method, tell: Tell) -> None:
    """Make what is missing with the peer of ``method``; it quantizes the linears that our recipes quantize."""
    assert method.peer is not None
    study, folder = store.study, store.method(method)
    jobs = folder.missing(study.jobs)
    if not jobs and folder.about is not None:
        return
    if study.device != "cpu":
        raise DvdqError("experiment", where=method.title, expected="the CPU, as peers run there", got=study.device)
    pipeline = study.load()
    if getattr(pipeline, "transformer_2", None) is not None:
        expected = "a pipeline with one transformer, as peers quantize no other"
        raise DvdqError("experiment", where=method.title, expected=expected, got="two")
    treatments = family_of(pipeline.transformer).treatments(pipeline.transformer)
    size = 2 * sum(parameter.numel() for parameter in pipeline.transformer.parameters())
    where_from, done = provenance(), 0
    what = f"{method.title}: generating"
    with tempfile.TemporaryDirectory() as temporary:
        by_path = {Path(temporary) / f"{job.name}.npz": job for job in jobs}

        def keep(video: VideoJob, seconds: float | None) -> None:
            nonlocal done
            made, job = read_video(video.path), by_path[video.path]
            record = VideoRecord(prompt=job.prompt, seed=job.seed, seconds=seconds, commit=where_from["commit"])
            folder.keep(job, to_bytes(made.frames), made.latents, record)
            done += 1
            tell(what, done, len(jobs))

        tell(what, 0, len(jobs))
        layers: Path | None = None
        started = time.perf_counter()
        if method.peer.give is not None and method.peer.options is not None:
            layers = Path(temporary) / "layers.safetensors"
            method.peer.give(pipeline.transformer, treatments, method.peer.options, layers)
        giving = time.perf_counter() - started
        summary = run_peer(
            method.peer,
            study.folder,
            type(pipeline).__name__,
            study.settings,
            [VideoJob(job.prompt, job.seed, path) for path, job in by_path.items()],
            [name for name, treatment in treatments.items() if treatment == "quantize"],
            keep,
            weight_only_names=[name for name, treatment in treatments.items() if treatment == "weight-only"],
            layers=layers,
            timeout=TIMEOUT,
        )
    if folder.about is None:
        folder.describe(_record(method, summary, giving + summary.quantize_seconds, size, where_from))


def _record(
    method: Method, summary: PeerSummary, prepare_seconds: float, size: int, where_from: dict[str, object]
) -> MethodRecord:
    bits = summary.bits_per_weight
    return MethodRecord(
        label=method.label,
        bits=method.bits,
        configuration=method.to_dict(),
        bytes=size - 2 * summary.weights + summary.stored_bytes,
        bytes_before=size,
        bits_per_weight=16.0 if bits is None else bits,
        prepare_seconds=round(prepare_seconds, 3),
        calibration_seconds=None,
        versions=summary.versions,
        provenance=where_from,
    )
