"""Distances of a video or a latent from its full-precision counterpart, and how steady a video is.

Videos are raw frames ``[frames, height, width, 3]`` in ``[0, 1]``: a codec's losses would be counted as the method's.
"""

from dvdq_eval.quality.distance import psnr, relative_error, temporal_flickering
from dvdq_eval.quality.fusion import vmaf
from dvdq_eval.quality.similarity import ms_ssim, ssim
from dvdq_eval.quality.video import VideoQuality, measure

__all__ = [
    "VideoQuality",
    "measure",
    "ms_ssim",
    "psnr",
    "relative_error",
    "ssim",
    "temporal_flickering",
    "vmaf",
]
