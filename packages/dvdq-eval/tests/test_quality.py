"""The metrics against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dvdq_eval.quality import VideoQuality, measure, ms_ssim, psnr, relative_error, ssim, temporal_flickering, vmaf
from dvdq_reference.spec.errors import DvdqError

Array = NDArray[np.float64]


@pytest.fixture
def video() -> Array:
    return np.random.default_rng(0).uniform(0.2, 0.8, (3, 16, 16, 3))


@pytest.mark.parametrize("offset", [0.1, 0.01])
def test_psnr_of_a_constant_difference_is_its_square(video: Array, offset: float) -> None:
    # The mean of n squares in float64 is off by at most n roundings.
    tolerance = video.size * np.finfo(np.float64).eps
    assert psnr(video + offset, video) == pytest.approx(-20.0 * math.log10(offset), rel=tolerance)


def test_equal_videos_have_infinite_psnr_and_full_similarity(video: Array) -> None:
    assert psnr(video, video) == math.inf
    # SSIM divides sums over windows by themselves: a few roundings from one.
    assert ssim(video, video) == pytest.approx(1.0, abs=7**2 * np.finfo(np.float64).eps)


def test_more_noise_is_less_quality(video: Array) -> None:
    noise = np.random.default_rng(1).uniform(-0.2, 0.2, video.shape)
    worse = [video + share * noise for share in (0.1, 0.3, 1.0)]
    for metric in (psnr, ssim):
        values = [metric(v, video) for v in worse]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 3


def test_relative_error_is_relative_to_the_reference() -> None:
    exact = np.array([3.0, 4.0])
    assert relative_error(np.array([3.0, 4.5]), exact) == 0.1
    assert relative_error(np.zeros(2), exact) == 1.0
    assert relative_error(exact, exact) == 0.0


def test_relative_error_from_zero() -> None:
    assert relative_error(np.zeros(2), np.zeros(2)) == 0.0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim, vmaf, relative_error, measure])
def test_bad_input_is_named(video: Array, metric: object) -> None:
    assert callable(metric)
    broken = video.copy()
    broken[0, 0, 0, 0] = np.nan
    for value in (video[:2], broken, video[:0]):
        with pytest.raises(DvdqError, match=metric.__name__):
            metric(value, video[: len(value)] if len(value) == 0 else video)


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim, vmaf, measure])
def test_frames_must_be_frames_from_zero_to_one(video: Array, metric: object) -> None:
    assert callable(metric)
    with pytest.raises(DvdqError, match="0 to 1"):
        metric(video * 2.0 - 1.0, video)
    with pytest.raises(DvdqError, match="frames"):
        metric(video[..., :1], video[..., :1])


def test_frames_smaller_than_the_window_have_no_ssim(video: Array) -> None:
    with pytest.raises(DvdqError, match="at least 7 x 7"):
        ssim(video[:, :6], video[:, :6])


def test_all_metrics_of_a_video_at_once(video: Array) -> None:
    noisy = video + np.random.default_rng(1).uniform(-0.1, 0.1, video.shape)
    assert measure(noisy, video) == VideoQuality(
        psnr_db=psnr(noisy, video),
        ssim=ssim(noisy, video),
        ms_ssim=ms_ssim(noisy, video),
        vmaf=vmaf(noisy, video),
        flickering=temporal_flickering(noisy),
        reference_flickering=temporal_flickering(video),
    )


def test_a_single_frame_does_not_flicker(video: Array) -> None:
    found = measure(video[:1], video[:1])
    assert (found.psnr_db, found.flickering, found.reference_flickering) == (math.inf, None, None)
