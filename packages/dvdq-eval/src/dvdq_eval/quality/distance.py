"""Plain arithmetic: PSNR, relative error, VBench's flickering, and the checks of arrays that every metric makes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dvdq_models.running.video import to_bytes
from dvdq_reference.spec.errors import DvdqError


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


def temporal_flickering(video: NDArray[np.floating]) -> float:
    """``(255 - mean |f_t+1 - f_t|) / 255`` over consecutive frames in whole levels 0 … 255: VBench's definition.

    1 is a still video. It needs no reference, but motion lowers it as flicker does: VBench asks for videos of things
    that stand still, and elsewhere only values of the same scene can be compared. VBench reads a file, this takes the
    frames before a codec.

    Raises:
        DvdqError: no frames in ``[0, 1]``, or fewer than two.
    """
    check_video("temporal_flickering", video)
    if len(video) < 2:
        raise DvdqError("temporal_flickering", expected="two frames or more", got=len(video))
    # Signed and wider: the difference of two bytes is no byte.
    levels = to_bytes(video).astype(np.int16)
    return (255.0 - float(np.abs(np.diff(levels, axis=0)).mean())) / 255.0


def check_pair(operation: str, value: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
    """Two arrays of one shape, not empty, of finite numbers."""
    if value.shape != reference.shape or value.size == 0:
        raise DvdqError(operation, expected=f"the reference's shape {reference.shape}, not empty", got=value.shape)
    for name, array in (("value", value), ("reference", reference)):
        _check_finite(operation, name, array)


def check_frames(operation: str, video: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
    """Two videos ``[frames, height, width, 3]`` of one shape, from 0 to 1."""
    check_pair(operation, video, reference)
    check_video(operation, video)
    check_video(operation, reference, "reference")


def check_video(operation: str, video: NDArray[np.floating], name: str = "video") -> None:
    """One video ``[frames, height, width, 3]``, not empty, from 0 to 1."""
    if video.ndim != 4 or video.shape[-1] != 3 or video.size == 0:
        raise DvdqError(operation, where=name, expected="frames [frames, height, width, 3]", got=video.shape)
    _check_finite(operation, name, video)
    if video.min() < 0.0 or video.max() > 1.0:
        raise DvdqError(operation, where=name, expected="values from 0 to 1", got="others")


def _check_finite(operation: str, name: str, array: NDArray[np.floating]) -> None:
    if not np.isfinite(array).all():
        raise DvdqError(operation, where=name, expected="finite numbers", got="NaN or Inf")
