"""Frames to and from mp4 files that every browser plays.

PyAV is imported when a file is read or written: who only times a model needs none.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvdq_reference.spec.errors import DvdqError

Frames = NDArray[np.uint8]
"""``[frames, height, width, 3]``, 0 to 255."""

VIDEO_ENDINGS = (".mp4", ".mkv", ".mov")
"""Of the files that :func:`write_mp4` can write."""
FPS = 12
_BT709 = 1
"""BT.709 in the code points of ITU-T H.273, for matrix, primaries and transfer alike."""


def to_bytes(frames: NDArray[np.floating]) -> Frames:
    """``[0, 1]`` to 0 … 255, rounded half to even; values outside are clipped."""
    return np.asarray(np.rint(np.clip(frames, 0.0, 1.0) * 255.0), dtype=np.uint8)


def enlarge(frames: Frames, factor: int) -> Frames:
    """Every pixel as a square of ``factor`` pixels: a small video stays sharp when a player scales it."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def write_mp4(path: Path, frames: Frames, *, fps: float = FPS) -> None:
    """Write H.264 in 4:2:0, which needs an even height and width."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    _check_frames("write_mp4", frames)
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise DvdqError("write_mp4", expected="an even height and width", got=(height, width))
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "14"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = _BT709, _BT709, _BT709
        context.color_range = ColorRange.MPEG
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            # Unasked, ffmpeg converts by the older BT.601 matrix: a player that reads the tags shows other colours.
            converted = image.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(converted))
        container.mux(stream.encode())


def write_lossless(path: Path, frames: Frames) -> None:
    """Write FFV1 in RGB, as Matroska: what is read back are the same bytes, and equal frames are equal files."""
    import av

    _check_frames("write_lossless", frames)
    # Unasked, Matroska gives every file a random name of its own.
    with av.open(str(path), "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=Fraction(FPS).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(image.reformat(format="bgr0")))
        container.mux(stream.encode())


def read_mp4(path: Path) -> Frames:
    """All frames of a video file, in whatever codec ffmpeg knows."""
    import av

    if not path.is_file():
        raise DvdqError("read_mp4", where=str(path), expected="a video file", got="none")
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as error:
        raise DvdqError("read_mp4", where=str(path), expected="a video file", got=str(error)) from error
    return np.stack(frames)


def _check_frames(operation: str, frames: Frames) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape or frames.dtype != np.uint8:
        got = f"{frames.dtype} {list(frames.shape)}"
        raise DvdqError(operation, expected="uint8 frames [frames, height, width, 3]", got=got)
