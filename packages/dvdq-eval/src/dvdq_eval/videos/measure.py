"""What each video is worth: its distance from full precision's, and what the detector sees in it."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np

from dvdq_eval.progress import Tell
from dvdq_eval.quality import relative_error, temporal_flickering
from dvdq_eval.quality.video import measure
from dvdq_eval.videos.store import MethodFolder
from dvdq_eval.videos.study import Job, Study
from dvdq_models.moving_shapes.detector import adherence


def measure_videos(
    study: Study, folder: MethodFolder, reference: MethodFolder, title: str, tell: Tell
) -> list[dict[str, Any]]:
    """The measurements of every video of a method, in the order of the study's jobs; what is not kept yet is made.

    Keys are ``psnr_db``, ``ssim``, ``ms_ssim``, ``vmaf``, ``latent_error``, ``flickering`` and, for prompts of the
    moving shapes, ``adherence``: the share of the prompt's words that the video shows, with ``words``, which of them.
    The reference itself has the last three alone. A distance is of the frames in 8 bits; PSNR is None for a video equal
    to its reference.
    """
    found = []
    for done, job in enumerate(study.jobs):
        tell(f"{title}: measuring", done, len(study.jobs))
        values = folder.quality(job)
        if values is None:
            values = _measure(job, folder, None if folder.folder == reference.folder else reference)
            folder.keep_quality(job, values)
        found.append(values)
    tell(f"{title}: measuring", len(study.jobs), len(study.jobs))
    return found


def _measure(job: Job, folder: MethodFolder, reference: MethodFolder | None) -> dict[str, Any]:
    frames = folder.frames(job).astype(np.float32) / np.float32(255.0)
    values: dict[str, Any] = {}
    if reference is None:
        values["flickering"] = temporal_flickering(frames) if len(frames) > 1 else None
    else:
        exact = reference.frames(job).astype(np.float32) / np.float32(255.0)
        values = asdict(measure(frames, exact))
        del values["reference_flickering"]
        if not isfinite(values["psnr_db"]):
            values["psnr_db"] = None
        values["latent_error"] = relative_error(folder.latents(job), reference.latents(job))
    if job.scene is not None:
        words = adherence(frames.transpose(3, 0, 1, 2) * 2.0 - 1.0, job.scene)
        values["words"] = words
        values["adherence"] = sum(words.values()) / len(words)
    return values
