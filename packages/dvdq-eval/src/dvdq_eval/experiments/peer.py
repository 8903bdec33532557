"""Videos by other people's packages, taken over into the store as if they were ours."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvdq_eval.experiments.configuration import Configuration
from dvdq_eval.experiments.store import MethodFolder
from dvdq_eval.experiments.study import Job, Study
from dvdq_eval.peers.records import configuration_of
from dvdq_eval.peers.run import PeerSummary, VideoJob, run_peer
from dvdq_eval.peers.video import read_video
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_models.families import family_of
from dvdq_models.running.video import to_bytes
from dvdq_reference.spec.errors import DvdqError

TIMEOUT = 7200.0
"""Seconds that a peer may take for one video: a big model on a CPU."""


def make_videos_by_peer(
    study: Study, configuration: Configuration, folder: MethodFolder, jobs: Sequence[Job], tell: Tell
) -> None:
    """Make videos with the peer that ``configuration`` names; it quantizes the linears that our recipes quantize."""
    assert configuration.peer is not None
    if study.device != "cpu":
        raise DvdqError(
            "experiment", where=configuration.title, expected="the CPU, as peers run there", got=study.device
        )
    pipeline = study.load()
    if getattr(pipeline, "transformer_2", None) is not None:
        expected = "a pipeline with one transformer, as peers quantize no other"
        raise DvdqError("experiment", where=configuration.title, expected=expected, got="two")
    treatments = family_of(pipeline.transformer).treatments(pipeline.transformer)
    size = 2 * sum(parameter.numel() for parameter in pipeline.transformer.parameters())
    where_from, done = provenance(), 0
    what = f"{configuration.title}: generating"
    with tempfile.TemporaryDirectory() as temporary:
        by_path = {Path(temporary) / f"{job.name}.npz": job for job in jobs}

        def keep(video: VideoJob, seconds: float | None) -> None:
            nonlocal done
            made, job = read_video(video.path), by_path[video.path]
            record = {"prompt": job.prompt, "seed": job.seed, "seconds": seconds, "commit": where_from["commit"]}
            folder.keep(job, to_bytes(made.frames), made.latents, record)
            done += 1
            tell(what, done, len(jobs))

        tell(what, 0, len(jobs))
        summary = run_peer(
            configuration_of(configuration.peer),
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
        folder.describe(_about(configuration, summary, size) | {"provenance": where_from})


def _about(configuration: Configuration, summary: PeerSummary, size: int) -> dict[str, Any]:
    return {
        "label": configuration.label,
        "bits": configuration.bits,
        "configuration": configuration.to_dict(),
        "bytes": size - 2 * summary.weights + summary.stored_bytes,
        "bytes_before": size,
        "bits_per_weight": summary.bits_per_weight,
        "prepare_seconds": round(summary.quantize_seconds, 3),
        "calibration_seconds": None,
        "versions": summary.versions,
    }
