"""VMAF, Netflix's fusion of several metrics by a model of what viewers said."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from dvdq_eval.quality.distance import check_frames
from dvdq_models.running.video import enlarge, to_bytes
from dvdq_reference.spec.errors import DvdqError

VMAF_MODEL = "vmaf_v0.6.1"
"""The model for pictures of 1080 lines, which libvmaf carries."""

VMAF_LEAST_SIDE = 256
"""Shorter side to which smaller frames are enlarged, in pixels."""

TIMEOUT = 600.0
"""Seconds that ffmpeg may take for one video; 81 frames of 720 × 1280 take a few."""

# VMAF looks at luma alone, by the matrix that write_mp4 uses. Said, or ffmpeg chooses the older BT.601.
_LUMA = "scale=out_color_matrix=bt709:out_range=limited,format=yuv444p"
_LOG = "vmaf.json"
_GRAPH = f"[0:v]{_LUMA}[video];[1:v]{_LUMA}[reference];[video][reference]libvmaf=model=version={VMAF_MODEL}"


def vmaf(video: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """VMAF from 0 to 100, the mean over frames, by the libvmaf in the ffmpeg that imageio-ffmpeg carries.

    The model was made for large pictures. Frames whose shorter side is below :data:`VMAF_LEAST_SIDE` are enlarged by
    the least whole factor that reaches it, each pixel a square: 64 × 64 by four. Frames are rounded to bytes and
    reach ffmpeg as they are, through no codec.

    A video equal to its reference has 97.4 in frames without motion, its first always one, and up to 100 elsewhere.
    The model takes added contrast for a gain: strong noise on a smooth picture can raise the value, so read it beside
    PSNR.

    Raises:
        DvdqError: unequal shapes, no frames in ``[0, 1]``, no ffmpeg, or an ffmpeg that fails (with the last line
            that it wrote) or takes longer than :data:`TIMEOUT`.
    """
    check_frames("vmaf", video, reference)
    factor = max(1, -(-VMAF_LEAST_SIDE // min(video.shape[1:3])))
    height, width = (factor * side for side in video.shape[1:3])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
        inputs = []
        for file, frames in (("video.rgb", video), ("reference.rgb", reference)):
            with (folder / file).open("wb") as stream:
                stream.writelines(enlarge(to_bytes(frame), factor).tobytes() for frame in frames)
            inputs += [*raw, "-i", file]
        # Relative names in the folder: a filter's options give meaning to characters that a path may have.
        graph = f"{_GRAPH}:log_fmt=json:log_path={_LOG}"
        _run_ffmpeg(["-loglevel", "error", *inputs, "-filter_complex", graph, "-f", "null", "-"], folder)
        log = json.loads((folder / _LOG).read_text())
    values = [float(frame["metrics"]["vmaf"]) for frame in log["frames"]]
    if len(values) != len(video):
        raise DvdqError("vmaf", where="ffmpeg", expected=f"values for {len(video)} frames", got=len(values))
    return statistics.fmean(values)


def _run_ffmpeg(arguments: list[str], folder: Path) -> None:
    try:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", *arguments]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DvdqError("vmaf", where="ffmpeg", expected=f"an end within {TIMEOUT} s", got="none") from error
    except (OSError, RuntimeError) as error:
        raise DvdqError("vmaf", where="ffmpeg", expected="a program to run", got=error) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        raise DvdqError("vmaf", where="ffmpeg", expected="success", got=f"code {done.returncode}: {said}")
