"""VMAF by the real ffmpeg, and by programs in its place that show what reaches it or that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from dvdq_eval.quality import fusion, vmaf
from dvdq_models.running.video import enlarge, to_bytes
from dvdq_reference.spec.errors import DvdqError

Array = NDArray[np.float64]
FRAMES, SIZE = 5, 64


@pytest.fixture(scope="module")
def video() -> Array:
    """Waves that move to the left, a little slower in each colour."""
    time, y, x = np.mgrid[:FRAMES, :SIZE, :SIZE]
    return np.stack([0.5 + 0.4 * np.sin((x + 2 * time) / (7 + c)) * np.cos(y / 9) for c in range(3)], axis=-1)


Script = Callable[[str], None]


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a shell script in ffmpeg's place."""

    def write(script: str) -> None:
        path = tmp_path / "ffmpeg"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))

    return write


def test_equal_videos_have_the_model_s_best(video: Array) -> None:
    still = np.repeat(video[:1], FRAMES, axis=0)
    # The docstring's figure, to the digit that it gives.
    assert vmaf(still, still) == pytest.approx(97.4, abs=0.05)
    assert vmaf(still, still) < vmaf(video, video) <= 100.0


def test_more_noise_is_less_quality(video: Array) -> None:
    noise = np.random.default_rng(0).standard_normal(video.shape)
    values = [vmaf(np.clip(video + share * noise, 0.0, 1.0), video) for share in (0.0, 0.01, 0.02, 0.05)]
    assert values == sorted(values, reverse=True)
    # What a viewer just notices is about six points (Netflix): these steps are seen.
    assert min(-np.diff(values)) > 6.0


def test_added_contrast_and_strong_noise_count_as_gains(video: Array) -> None:
    """What the docstring warns of. The model's variant "neg" has neither."""
    assert vmaf(0.5 + 1.2 * (video - 0.5), video) > vmaf(video, video)
    noise = np.random.default_rng(0).standard_normal(video.shape)
    some, more = (vmaf(np.clip(video + share * noise, 0.0, 1.0), video) for share in (0.1, 0.2))
    assert more > some


def test_a_blurred_video_is_worse_than_one_sharper_than_its_reference(video: Array) -> None:
    blurred = uniform_filter(video, (1, 9, 9, 1))
    assert vmaf(blurred, video) < vmaf(video, blurred)


def test_small_frames_are_enlarged_and_large_ones_are_not(video: Array) -> None:
    noisy = np.clip(video + 0.02 * np.random.default_rng(0).standard_normal(video.shape), 0.0, 1.0)

    def enlarged(frames: Array, factor: int) -> Array:
        return enlarge(to_bytes(frames), factor) / 255.0

    small = vmaf(noisy, video)
    assert vmaf(enlarged(noisy, 2), enlarged(video, 2)) == small
    assert vmaf(enlarged(noisy, 4), enlarged(video, 4)) == small
    assert vmaf(enlarged(noisy, 8), enlarged(video, 8)) != small


@pytest.mark.parametrize(("height", "width", "factor"), [(255, 300, 2), (256, 300, 1), (300, 100, 3), (301, 257, 1)])
def test_frames_reach_ffmpeg_byte_for_byte(
    ffmpeg: Script, tmp_path: Path, height: int, width: int, factor: int
) -> None:
    scores = [90.0, 60.0]
    (tmp_path / "log").write_text(json.dumps({"frames": [{"metrics": {"vmaf": score}} for score in scores]}))
    ffmpeg(f'cp video.rgb reference.rgb "{tmp_path}"; cp "{tmp_path}/log" vmaf.json; echo "$@" > "{tmp_path}/said"')
    video, reference = np.random.default_rng(0).random((2, 2, height, width, 3))
    assert vmaf(video, reference) == 75.0
    for name, frames in (("video.rgb", video), ("reference.rgb", reference)):
        assert (tmp_path / name).read_bytes() == enlarge(to_bytes(frames), factor).tobytes()
    words = (tmp_path / "said").read_text().split()
    assert [words[i + 1] for i, word in enumerate(words) if word == "-i"] == ["video.rgb", "reference.rgb"]
    assert words.count(f"{factor * width}x{factor * height}") == 2


def test_a_failure_is_said_with_ffmpeg_s_last_line(ffmpeg: Script, video: Array) -> None:
    ffmpeg("echo first >&2; echo 'No such filter: libvmaf' >&2; echo >&2; exit 8")
    with pytest.raises(DvdqError, match=r"^vmaf: ffmpeg: expected success, got code 8: No such filter: libvmaf$"):
        vmaf(video, video)
    ffmpeg("exit 3")
    with pytest.raises(DvdqError, match="code 3: no message"):
        vmaf(video, video)


def test_too_few_values_are_an_error(ffmpeg: Script, video: Array) -> None:
    ffmpeg("""echo '{"frames": [{"metrics": {"vmaf": 90.0}}]}' > vmaf.json""")
    with pytest.raises(DvdqError, match="values for 5 frames, got 1"):
        vmaf(video, video)


def test_an_ffmpeg_that_never_ends_is_ended(ffmpeg: Script, video: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "TIMEOUT", 0.1)
    ffmpeg("exec sleep 60")
    with pytest.raises(DvdqError, match=r"an end within 0\.1 s"):
        vmaf(video, video)


def test_no_ffmpeg_is_an_error(video: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(DvdqError, match="a program to run"):
        vmaf(video, video)
