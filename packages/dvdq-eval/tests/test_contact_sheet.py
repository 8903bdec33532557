"""The grid of pictures holds each clip's own pixels where its labels say."""

from __future__ import annotations

import numpy as np
import pytest

from dvdq_eval.contact_sheet import contact_sheet, labelled_grid, side_by_side
from dvdq_models.running.video import Frames

SIZE = 16


def solid(value: int, frames: int = 5) -> Frames:
    """A clip whose frame i is gray ``value + i``."""
    levels = value + np.arange(frames, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, SIZE, SIZE, 3)).copy()


CLIPS = [[solid(40), solid(80)], [solid(120), solid(160)], [solid(200), solid(220)]]
ROWS, COLUMNS = ["first", "second", "third"], ["left", "right"]


def levels_in_order(picture: Frames, wanted: set[int]) -> list[int]:
    """The wanted gray levels in the order in which reading by rows first meets them."""
    gray = picture[(picture == picture[..., :1]).all(axis=-1)][:, 0]
    found, first = np.unique(gray, return_index=True)
    return [int(level) for _, level in sorted(zip(first, found, strict=True)) if int(level) in wanted]


def test_cells_stand_in_the_order_of_rows_and_columns() -> None:
    sheet = np.asarray(labelled_grid(ROWS, COLUMNS, [[clip[0] for clip in row] for row in CLIPS]))
    wanted = {int(clip[0, 0, 0, 0]) for row in CLIPS for clip in row}
    levels = [level for level in levels_in_order(sheet, wanted) if np.sum(sheet[..., 0] == level) >= SIZE**2]
    assert levels == [40, 80, 120, 160, 200, 220]


def test_a_cell_shows_the_first_middle_and_last_frame() -> None:
    sheet = np.asarray(contact_sheet(["row"], ["column"], [[solid(100)]], moments=3, scale=2))
    counts = {level: int(np.sum((sheet == level).all(axis=-1))) for level in range(100, 105)}
    # The divider takes two columns of the frames after the first; single pixels of the labels may be of any gray.
    assert counts[100] >= 4 * SIZE**2
    assert min(counts[102], counts[104]) >= 4 * SIZE**2 - 4 * SIZE
    assert max(counts[101], counts[103]) < SIZE


def test_the_video_plays_all_clips_and_can_be_encoded() -> None:
    video = side_by_side(ROWS, COLUMNS, CLIPS, scale=3)
    assert video.shape[0] == 5
    assert video.shape[1] % 2 == video.shape[2] % 2 == 0
    for time in range(5):
        for level in (40, 80, 120, 160, 200, 220):
            assert np.sum((video[time] == level + time).all(axis=-1)) >= 9 * SIZE**2


@pytest.mark.parametrize("label", ["short", "a label that is much longer than the picture below it " * 2])
def test_labels_do_not_change_the_size(label: str) -> None:
    assert labelled_grid([label], [label], [[solid(0)[0]]]).size == labelled_grid([""], [""], [[solid(0)[0]]]).size
