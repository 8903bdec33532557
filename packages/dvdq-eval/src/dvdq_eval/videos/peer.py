"""Videos by other people's packages, taken over into the store as if they were ours."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dvdq_eval.peers.run import PeerSummary, VideoJob, read_video, run_peer
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.videos.method import Method
from dvdq_eval.videos.records import MethodRecord, VideoRecord
from dvdq_eval.videos.store import Store
from dvdq_models.families import family_of
from dvdq_models.running.video import to_bytes
from dvdq_reference.spec.errors import DvdqError

TIMEOUT = 7200.0
"""Seconds that a peer may take for one video: a big model on a CPU."""


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
        summary = run_peer(
            method.peer,
            study.folder,
            type(pipeline).__name__,
            study.settings,
            [VideoJob(job.prompt, job.seed, path) for path, job in by_path.items()],
            [name for name, treatment in treatments.items() if treatment == "quantize"],
            keep,
            weight_only_names=[name for name, treatment in treatments.items() if treatment == "weight-only"],
            timeout=TIMEOUT,
        )
    if folder.about is None:
        folder.describe(_record(method, summary, size, where_from))


def _record(method: Method, summary: PeerSummary, size: int, where_from: dict[str, object]) -> MethodRecord:
    bits = summary.bits_per_weight
    return MethodRecord(
        label=method.label,
        bits=method.bits,
        configuration=method.to_dict(),
        bytes=size - 2 * summary.weights + summary.stored_bytes,
        bytes_before=size,
        bits_per_weight=16.0 if bits is None else bits,
        prepare_seconds=round(summary.quantize_seconds, 3),
        calibration_seconds=None,
        versions=summary.versions,
        provenance=where_from,
    )
