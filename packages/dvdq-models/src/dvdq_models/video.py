"""Frames to and from mp4 files that every browser plays."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from dvdq_reference.spec.errors import DvdqError

Frames = NDArray[np.uint8]
"""``[frames, height, width, 3]``, 0 to 255."""

FPS = 12
_COLOURS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
# Without its own filter ffmpeg converts by the older BT.601 matrix: a player that reads the tags shows other colours.
_ENCODING = ("-vf", "scale=out_color_matrix=bt709:out_range=tv", *_COLOURS, "-crf", "14", "-movflags", "+faststart")


def to_bytes(frames: NDArray[np.floating]) -> Frames:
    """``[0, 1]`` to 0 … 255, rounded half to even; values outside are clipped."""
    return np.asarray(np.rint(np.clip(frames, 0.0, 1.0) * 255.0), dtype=np.uint8)


def enlarge(frames: Frames, factor: int) -> Frames:
    """Every pixel as a square of ``factor`` pixels: a small video stays sharp when a player scales it."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def write_mp4(path: Path, frames: Frames, *, fps: float = FPS) -> None:
    """Write H.264 in 4:2:0, which needs an even height and width."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape or frames.dtype != np.uint8:
        raise DvdqError(
            "write_mp4", expected="uint8 frames [frames, height, width, 3]", got=(frames.dtype, frames.shape)
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise DvdqError("write_mp4", expected="an even height and width", got=(height, width))
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        quality=None,
        macro_block_size=2,
        output_params=list(_ENCODING),
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def read_mp4(path: Path) -> Frames:
    """All frames of a video file, in whatever codec ffmpeg knows."""
    if not path.is_file():
        raise DvdqError("read_mp4", where=str(path), expected="a video file", got="none")
    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        width, height = next(reader)["size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except OSError as error:
        raise DvdqError(
            "read_mp4", where=str(path), expected="a video that ffmpeg can read", got="another file"
        ) from error
    finally:
        reader.close()
    return np.stack(frames)
