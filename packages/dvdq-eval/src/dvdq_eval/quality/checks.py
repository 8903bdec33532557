"""What every metric asks of its arrays; anything else is a :class:`DvdqError` that names the metric."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dvdq_reference.spec.errors import DvdqError


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
