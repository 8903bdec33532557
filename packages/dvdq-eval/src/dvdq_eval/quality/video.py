"""All metrics of one video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dvdq_eval.quality.distance import check_frames, psnr, temporal_flickering
from dvdq_eval.quality.fusion import vmaf
from dvdq_eval.quality.similarity import ms_ssim, ssim


@dataclass(frozen=True)
class VideoQuality:
    """One video against its reference; of the reference itself there is how steady it is, to hold the video's against.

    ``psnr_db`` is infinite for a video equal to its reference. A single frame has no ``flickering``.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float
    vmaf: float
    flickering: float | None
    reference_flickering: float | None


def measure(video: NDArray[np.floating], reference: NDArray[np.floating]) -> VideoQuality:
    """Every metric of a video ``[frames, height, width, 3]`` in ``[0, 1]``, each as its own function says.

    Raises:
        DvdqError: unequal shapes, no frames in ``[0, 1]``, frames smaller than 11 × 11, or no VMAF from ffmpeg.
    """
    check_frames("measure", video, reference)
    moves = len(video) > 1
    return VideoQuality(
        psnr_db=psnr(video, reference),
        ssim=ssim(video, reference),
        ms_ssim=ms_ssim(video, reference),
        vmaf=vmaf(video, reference),
        flickering=temporal_flickering(video) if moves else None,
        reference_flickering=temporal_flickering(reference) if moves else None,
    )
