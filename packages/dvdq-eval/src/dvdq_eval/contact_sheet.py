"""A labelled grid of pictures: prompts down, methods across."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from dvdq_models.running.video import Frames, enlarge

BACKGROUND, TEXT, FRAME = "#12161d", "#e8ecf2", "#2b323d"
MARGIN, GAP, HEADER, CAPTION, SIZE = 20, 12, 38, 26, 17


def contact_sheet(
    rows: Sequence[str], columns: Sequence[str], clips: Sequence[Sequence[Frames]], *, moments: int = 3, scale: int = 2
) -> Image.Image:
    """One picture of all clips: each cell shows ``moments`` frames from its clip's first to its last.

    Args:
        rows: what stands above each row, e.g. its prompt.
        columns: what stands above each column, e.g. its method.
        clips: ``clips[row][column]``, all of one shape.
        moments: frames shown of each clip.
        scale: pixels a side that each pixel of a clip takes.
    """

    def cell(clip: Frames) -> Frames:
        shown = enlarge(clip[np.linspace(0, len(clip) - 1, moments).round().astype(int)], scale)
        shown[1:, :, :2] = ImageColor.getrgb(FRAME)
        return np.concatenate(list(shown), axis=1)

    return labelled_grid(rows, columns, [[cell(clip) for clip in row] for row in clips])


def side_by_side(
    rows: Sequence[str], columns: Sequence[str], clips: Sequence[Sequence[Frames]], *, scale: int = 3
) -> Frames:
    """The same grid as a video: all clips play at once."""
    frames = [
        np.asarray(labelled_grid(rows, columns, [[enlarge(clip[time], scale) for clip in row] for row in clips]))
        for time in range(len(clips[0][0]))
    ]
    video = np.stack(frames)
    # 4:2:0 video stores colour once for two pixels each way.
    return video[:, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2]


def labelled_grid(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Frames]]) -> Image.Image:
    """Pictures ``[height, width, 3]`` of one size in a grid, with a label above each column and each row."""
    height, width = cells[0][0].shape[:2]
    pitch_x, pitch_y = width + GAP, height + GAP + CAPTION
    total = (2 * MARGIN + len(columns) * pitch_x - GAP, 2 * MARGIN + HEADER + len(rows) * pitch_y - GAP)
    sheet = Image.new("RGB", total, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(columns):
        middle = MARGIN + column * pitch_x + width // 2
        pen.text((middle, MARGIN), label, TEXT, _font(SIZE, label, width), anchor="ma")
    for row, label in enumerate(rows):
        top = MARGIN + HEADER + row * pitch_y
        pen.text((MARGIN, top), label, TEXT, _font(SIZE - 2, label, total[0] - 2 * MARGIN), anchor="la")
        for column, cell in enumerate(cells[row]):
            corner = (MARGIN + column * pitch_x, top + CAPTION)
            sheet.paste(Image.fromarray(cell), corner)
            pen.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + width, corner[1] + height), outline=FRAME)
    return sheet


def _font(size: int, text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font up to ``size`` in which ``text`` fits into ``width`` pixels."""
    while size > 8 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    return ImageFont.load_default(size)
