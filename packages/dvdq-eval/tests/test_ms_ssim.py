"""Multi-scale similarity against its formula in NumPy and SciPy, and how many scales a frame has."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from scipy.ndimage import correlate1d

from dvdq_eval.quality import ms_ssim
from dvdq_reference.spec.errors import DvdqError

Array = NDArray[np.float64]

WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2
BORDER = WINDOW // 2
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def pair(height: int, width: int, frames: int = 2) -> tuple[Array, Array]:
    """Uniform noise, and the same with more noise from frame to frame."""
    rng = np.random.default_rng(0)
    reference = rng.uniform(0.2, 0.8, (frames, height, width, 3))
    noise = rng.uniform(-0.2, 0.2, reference.shape)
    return reference + noise * np.linspace(0.5, 1.0, frames)[:, None, None, None], reference


def smooth(picture: Array) -> Array:
    weights = np.exp(-0.5 * (np.arange(-BORDER, BORDER + 1) / SIGMA) ** 2)
    for axis in (0, 1):
        picture = correlate1d(picture, weights / weights.sum(), axis, mode="mirror")
    return picture


def halve(picture: Array) -> Array:
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    return picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))


def similarity(frame: Array, wanted: Array) -> tuple[float, float, float]:
    """Mean contrast and structure, mean SSIM, and the smallest number that either was divided by."""
    x, y = smooth(frame), smooth(wanted)
    xx, yy, xy = smooth(frame**2) - x**2, smooth(wanted**2) - y**2, smooth(frame * wanted) - x * y
    contrast = (2 * xy + C2) / (xx + yy + C2)
    whole = contrast * (2 * x * y + C1) / (x**2 + y**2 + C1)
    inner = contrast[BORDER:-BORDER, BORDER:-BORDER]
    return float(inner.mean()), float(whole.mean()), float(min((xx + yy + C2).min(), (x**2 + y**2 + C1).min()))


def expected(video: Array, reference: Array, scales: int, dtype: DTypeLike) -> tuple[float, float]:
    """The mean over frames, and by how much rounding in ``dtype`` may move it."""
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    values, tolerances = [], []
    # A moment is a sum over the window of products of halved frames, all at most one.
    moment = (WINDOW**2 + 4 * scales) * float(np.finfo(dtype).eps)
    for frame, wanted in zip(video, reference, strict=True):
        terms, least = [], math.inf
        for _ in range(scales):
            contrast, whole, divisor = similarity(frame, wanted)
            terms.append(contrast)
            least = min(least, divisor)
            frame, wanted = halve(frame), halve(wanted)
        terms[-1] = whole
        values.append(float(np.prod(np.array(terms) ** weights)))
        # Each fraction has 2 (E[xy] - E[x] E[y]) above and two such below, six moments each; so has the luminance.
        quotients = 2 * 12 * moment / least / min(terms)
        # torchmetrics keeps the exponents in float32 whatever the frames are in.
        exponents = float(-weights @ np.log(terms)) * float(np.finfo(np.float32).eps)
        tolerances.append(quotients + exponents)
    return float(np.mean(values)), max(tolerances)


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (21, 1), (22, 2), (43, 2), (44, 3), (64, 3), (98, 3), (99, 4), (175, 4), (176, 5)]
)
def test_a_frame_has_as_many_scales_as_the_window_fits(side: int, scales: int) -> None:
    video, reference = pair(side, side + 3)
    value, tolerance = expected(video, reference, scales, np.float64)
    assert ms_ssim(video, reference) == pytest.approx(value, rel=tolerance)
    assert ms_ssim(video.swapaxes(1, 2), reference.swapaxes(1, 2)) == pytest.approx(value, rel=tolerance)
    if scales > 1:
        # One scale fewer would be seen.
        assert expected(video, reference, scales - 1, np.float64)[0] != pytest.approx(value, rel=2 * tolerance)


def test_single_precision_is_the_same_up_to_its_rounding() -> None:
    video, reference = pair(64, 64)
    value, tolerance = expected(video, reference, 3, np.float32)
    single = ms_ssim(video.astype(np.float32), reference.astype(np.float32))
    assert single == pytest.approx(value, rel=tolerance)
    assert single != ms_ssim(video, reference)


def test_equal_videos_are_fully_similar() -> None:
    video, _ = pair(64, 64)
    value, tolerance = expected(video, video, 3, np.float64)
    assert ms_ssim(video, video) == pytest.approx(1.0, rel=tolerance)
    assert value == pytest.approx(1.0, rel=tolerance)


def test_more_noise_is_less_similarity() -> None:
    video, reference = pair(64, 64)
    values = [ms_ssim(reference + share * (video - reference), reference) for share in (0.0, 0.1, 0.3, 1.0)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_the_opposite_picture_has_none() -> None:
    """A negative contrast has no power of a fraction: it counts as 0, not as NaN."""
    _, reference = pair(64, 64)
    assert ms_ssim(1.0 - reference, reference) == 0.0


def test_frames_smaller_than_the_window_have_none() -> None:
    video, reference = pair(10, 64)
    with pytest.raises(DvdqError, match="at least 11 pixels"):
        ms_ssim(video, reference)
