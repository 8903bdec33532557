"""Flickering against VBench's computation, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from dvdq_eval.quality import temporal_flickering
from dvdq_models.running.video import Frames
from dvdq_reference.spec.errors import DvdqError


def as_vbench(frames: Frames) -> float:
    """What it does to the frames of a file: mean absolute difference in float32, for one pair after another."""
    means = []
    for i in range(len(frames) - 1):
        first, second = frames[i].astype(np.float32), frames[i + 1].astype(np.float32)
        means.append(np.mean(np.abs(first - second)))
    return (255.0 - np.mean(np.array(means)).item()) / 255.0


@pytest.mark.parametrize("frames", [2, 3, 17])
def test_it_is_vbench_s(frames: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)
    # Sums of whole levels below 2^24 are exact; each mean and their mean, at most one, are rounded to float32.
    assert levels[0].size * 255 < 2**24
    tolerance = (1 + frames) * float(np.finfo(np.float32).eps)
    for dtype in (np.float32, np.float64):
        value = temporal_flickering(levels.astype(dtype) / dtype(255))
        assert value == pytest.approx(as_vbench(levels), abs=tolerance)


@pytest.mark.parametrize("step", [0, 1, 51, 255])
def test_a_constant_step_is_itself(step: int) -> None:
    video = np.zeros((4, 8, 8, 3))
    video[1::2] = step / 255.0
    assert temporal_flickering(video) == (255.0 - step) / 255.0


@pytest.mark.parametrize(("first", "second", "steps"), [(100.6, 101.4, 0), (100.4, 100.6, 1)])
def test_frames_are_rounded_to_levels_before(first: float, second: float, steps: int) -> None:
    video = np.full((2, 8, 8, 3), first / 255.0)
    video[1] = second / 255.0
    assert temporal_flickering(video) == (255.0 - steps) / 255.0


def test_bad_input_is_named() -> None:
    video = np.zeros((3, 8, 8, 3))
    broken = video.copy()
    broken[0, 0, 0, 0] = np.nan
    bad = ((video[:1], "two frames"), (broken, "finite"), (video[..., 0], "frames"), (video + 2.0, "0 to 1"))
    for value, said in bad:
        with pytest.raises(DvdqError, match=f"temporal_flickering.*{said}"):
            temporal_flickering(value)
