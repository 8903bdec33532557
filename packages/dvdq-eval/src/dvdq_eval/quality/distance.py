"""PSNR, SSIM and MS-SSIM, relative error, VBench's flickering, and the checks of arrays that every metric makes."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from dvdq_models.running.video import to_bytes
from dvdq_reference.spec.errors import DvdqError

SSIM_WINDOW = 7
"""Side of the square over which SSIM compares, in pixels; no frame may be smaller."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's five scales, the finest first (Wang, Simoncelli and Bovik 2003)."""

LEAST_SIDES = (11, 22, 44, 99, 176)
"""Shorter side from which a frame has one, two, … five scales: the coarsest still holds the window of 11 pixels.

That would need 88 pixels for the fourth scale; torchmetrics takes it from 99.
"""


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


def ssim(video: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Structural similarity, the mean over frames and colours (Wang et al. 2004, scikit-image's defaults)."""
    check_frames("ssim", video, reference)
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


def ms_ssim(video: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Multi-scale structural similarity, the mean over frames; torchmetrics' form of it.

    A frame's value is ``ssim_M^w_M · Π_{j<M} cs_j^w_j``: scale j is the frame halved j - 1 times by means of 2 × 2
    pixels; ``cs`` is SSIM's contrast and structure, ``ssim`` all of it, each a mean over pixels and colours, at least
    0, in a Gaussian window of σ = 1.5 and 11 pixels. The weights w are :data:`SCALE_WEIGHTS`. A frame too small for
    five scales has the first M that fit (:data:`LEAST_SIDES`), and their weights are divided by their sum: 64 × 64
    has three. Values of videos with different M cannot be compared.

    The window's pixels beyond the border are mirrored ones. ``cs`` leaves out where that happens, ``ssim`` does not.
    Frames in float64 are compared in float64, others in float32, which on a CPU takes a twentieth of the time.

    Raises:
        DvdqError: unequal shapes, no frames in ``[0, 1]``, or frames smaller than the window.
    """
    check_frames("ms_ssim", video, reference)
    scales = sum(min(video.shape[1:3]) >= side for side in LEAST_SIDES)
    if scales == 0:
        raise DvdqError("ms_ssim", expected=f"frames of at least {LEAST_SIDES[0]} pixels a side", got=video.shape[1:3])
    weights = SCALE_WEIGHTS[:scales]
    betas = tuple(weight / sum(weights) for weight in weights)
    # One frame at a time: the windows of a frame take many times its memory.
    values = [
        multiscale_structural_similarity_index_measure(
            _batch_of_one(frame), _batch_of_one(wanted), sigma=1.5, kernel_size=11, data_range=1.0, betas=betas
        )
        for frame, wanted in zip(video, reference, strict=True)
    ]
    return float(torch.stack(values).double().mean())


def _batch_of_one(frame: NDArray[np.floating]) -> torch.Tensor:
    """``[height, width, 3]`` as ``[1, 3, height, width]``, of float64 or else float32."""
    dtype = np.float64 if frame.dtype == np.float64 else np.float32
    return torch.from_numpy(frame.astype(dtype)).permute(2, 0, 1)[None]
