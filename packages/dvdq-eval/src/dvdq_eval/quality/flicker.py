"""How steady a video is from frame to frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dvdq_eval.quality.checks import check_video
from dvdq_models.running.video import to_bytes
from dvdq_reference.spec.errors import DvdqError


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
