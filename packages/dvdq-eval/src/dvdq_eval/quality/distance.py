"""Distances of a video or a latent from its full-precision counterpart.

Videos are raw frames ``[frames, height, width, 3]`` in ``[0, 1]``: a codec's losses would be counted as the method's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from dvdq_reference.spec.errors import DvdqError

SSIM_WINDOW = 7
"""Side of the square over which SSIM compares, in pixels; no frame may be smaller."""


def psnr(video: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """``10 log10(1 / MSE)`` in dB over all frames at once; infinite if the two are equal."""
    _check_frames("psnr", video, reference)
    error = float(np.mean((video.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return math.inf if error == 0.0 else -10.0 * math.log10(error)


def ssim(video: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Structural similarity, the mean over frames and colours (Wang et al. 2004, scikit-image's defaults)."""
    _check_frames("ssim", video, reference)
    if min(video.shape[1:3]) < SSIM_WINDOW:
        raise DvdqError("ssim", expected=f"frames of at least {SSIM_WINDOW} x {SSIM_WINDOW}", got=video.shape[1:3])
    return float(
        np.mean(
            [
                structural_similarity(frame, wanted, channel_axis=-1, data_range=1.0, win_size=SSIM_WINDOW)
                for frame, wanted in zip(video, reference, strict=True)
            ]
        )
    )


def relative_error(value: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """``‖a - b‖ / ‖b‖`` with Euclidean norms over all elements, b the reference; from zero, 0 or infinity."""
    _check_pair("relative_error", value, reference)
    exact = reference.astype(np.float64)
    error, size = float(np.linalg.norm(value.astype(np.float64) - exact)), float(np.linalg.norm(exact))
    if size == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / size


def _check_pair(operation: str, value: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
    if value.shape != reference.shape or value.size == 0:
        raise DvdqError(operation, expected=f"the reference's shape {reference.shape}, not empty", got=value.shape)
    for name, array in (("value", value), ("reference", reference)):
        if not np.isfinite(array).all():
            raise DvdqError(operation, where=name, expected="finite numbers", got="NaN or Inf")


def _check_frames(operation: str, value: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
    _check_pair(operation, value, reference)
    if value.ndim != 4 or value.shape[-1] != 3:
        raise DvdqError(operation, expected="frames [frames, height, width, 3]", got=value.shape)
    for name, array in (("video", value), ("reference", reference)):
        if array.min() < 0.0 or array.max() > 1.0:
            raise DvdqError(operation, where=name, expected="values from 0 to 1", got="others")
