"""What each video is worth: its distance from full precision's, and what the detector sees in it."""

from __future__ import annotations

from math import isfinite

import numpy as np

from dvdq_eval.progress import Tell, told
from dvdq_eval.quality import relative_error, temporal_flickering
from dvdq_eval.quality.compare import measure
from dvdq_eval.videos.records import Quality
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Job
from dvdq_models.moving_shapes.detector import adherence


def measure_videos(
    store: Store, folder: MethodFolder, reference: MethodFolder, title: str, tell: Tell
) -> list[Quality]:
    """The quality of every video of a method, in the order of the study's jobs; what is not kept yet is measured."""
    found = []
    for job in told(tell, f"{title}: measuring", store.study.jobs):
        quality = folder.quality(job)
        if quality is None:
            quality = _measure(job, folder, None if folder == reference else reference)
            folder.keep_quality(job, quality)
        found.append(quality)
    return found


def _measure(job: Job, folder: MethodFolder, reference: MethodFolder | None) -> Quality:
    frames = folder.frames(job).astype(np.float32) / np.float32(255.0)
    words = None if job.scene is None else adherence(frames.transpose(3, 0, 1, 2) * 2.0 - 1.0, job.scene)
    seen = None if words is None else sum(words.values()) / len(words)
    if reference is None:
        steady = temporal_flickering(frames) if len(frames) > 1 else None
        return Quality(flickering=steady, words=words, adherence=seen)
    exact = reference.frames(job).astype(np.float32) / np.float32(255.0)
    found = measure(frames, exact)
    return Quality(
        psnr_db=found.psnr_db if isfinite(found.psnr_db) else None,
        ssim=found.ssim,
        ms_ssim=found.ms_ssim,
        vmaf=found.vmaf,
        flickering=found.flickering,
        latent_error=relative_error(folder.latents(job), reference.latents(job)),
        words=words,
        adherence=seen,
    )
