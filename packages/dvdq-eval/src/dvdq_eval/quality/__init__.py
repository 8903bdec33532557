"""Distances of a video or a latent from its full-precision counterpart, and how steady a video is.

Videos are raw frames ``[frames, height, width, 3]`` in ``[0, 1]``: a codec's losses would be counted as the method's.
"""

from dvdq_eval.quality.compare import VideoQuality, measure
from dvdq_eval.quality.distance import ms_ssim, psnr, relative_error, ssim, temporal_flickering
from dvdq_eval.quality.fusion import vmaf

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
