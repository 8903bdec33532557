"""Distances that are a mean of squares: PSNR of videos, relative error of latents."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dvdq_eval.quality.checks import check_frames, check_pair


def psnr(video: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """``10 log10(1 / MSE)`` in dB over all frames at once; infinite if the two are equal."""
    check_frames("psnr", video, reference)
    error = float(np.mean((video.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return math.inf if error == 0.0 else -10.0 * math.log10(error)


def relative_error(value: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """``‖a - b‖ / ‖b‖`` with Euclidean norms over all elements, b the reference; from zero, 0 or infinity."""
    check_pair("relative_error", value, reference)
    exact = reference.astype(np.float64)
    error, size = float(np.linalg.norm(value.astype(np.float64) - exact)), float(np.linalg.norm(exact))
    if size == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / size
