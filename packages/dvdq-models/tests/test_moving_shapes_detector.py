"""The detector against the generator's truth, and against clips that show nothing clearly."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from dvdq_models.moving_shapes.clips import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    FRAMES,
    SHAPES,
    SIZE,
    SPEEDS,
    Placement,
    Scene,
    all_scenes,
    draw,
    random_placement,
)
from dvdq_models.moving_shapes.detector import Detection, adherence, detect
from dvdq_reference.spec.errors import DvdqError

CLIPS = 192
"""For each kind of damage: 576 in all."""
REQUIRED = 0.98
"""The share of drawn clips on which each word must be right."""
NOTHING = Detection()
CHOICES = {
    "colour": COLOURS,
    "shape": SHAPES,
    "direction": DIRECTIONS,
    "speed": SPEEDS,
    "background": BACKGROUNDS,
}
SCENE = Scene("red", "square", "left", "quickly", "gray")
PLACEMENT = Placement((32.0, 32.0), 10.0)


@pytest.mark.parametrize(("seed", "blur", "noise"), [(0, 0.0, 0.0), (1, 1.0, 0.05), (2, 1.5, 0.1)])
def test_words_of_drawn_clips_are_found(seed: int, blur: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    scenes = all_scenes()
    right = dict.fromkeys(CHOICES, 0)
    for _ in range(CLIPS):
        scene = scenes[rng.integers(len(scenes))]
        clip = draw(scene, random_placement(rng))
        damaged = ndimage.gaussian_filter(clip, (0, blur / 2, blur, blur)) + noise * rng.standard_normal(clip.shape)
        for word, found in adherence(damaged, scene).items():
            right[word] += found
    assert {word: count / CLIPS for word, count in right.items() if count < REQUIRED * CLIPS} == {}


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_an_empty_clip_has_no_object(level: float) -> None:
    found = detect(np.full((3, FRAMES, SIZE, SIZE), level))
    assert replace(found, background=None) == NOTHING


@pytest.mark.parametrize("smooth", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_noise_shows_nothing(seed: int, smooth: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((3, FRAMES, SIZE, SIZE)), smooth)
    found = detect(noise / noise.std())
    assert (found.colour, found.shape, found.direction, found.speed) == (None,) * 4


def test_wrong_words_are_judged_wrong() -> None:
    clip = draw(SCENE, PLACEMENT)
    for word, choices in CHOICES.items():
        for other in set(choices) - {getattr(SCENE, word)}:
            judged = adherence(clip, replace(SCENE, **{word: other}))
            assert judged == {key: key != word for key in CHOICES}


@pytest.mark.parametrize(
    ("forward", "backward"), [("left", "right"), ("right", "left"), ("up", "down"), ("down", "up")]
)
def test_playing_backwards_flips_the_direction_alone(forward: str, backward: str) -> None:
    clip = draw(replace(SCENE, direction=forward), PLACEMENT)
    assert asdict(detect(clip[:, ::-1])) == asdict(replace(SCENE, direction=backward))


def test_turning_the_frame_turns_the_direction() -> None:
    clip = draw(SCENE, PLACEMENT)
    assert detect(clip.swapaxes(2, 3)).direction == "up"


def test_a_still_shape_has_no_direction() -> None:
    clip = draw(SCENE, PLACEMENT)
    still = np.repeat(clip[:, :1], FRAMES, axis=1)
    assert detect(still) == Detection("red", "square", None, None, "gray")


def test_a_diagonal_path_has_no_direction() -> None:
    clip = draw(SCENE, PLACEMENT)
    shifted = np.stack([np.roll(clip[:, i], i - FRAMES // 2, axis=1) for i in range(FRAMES)], axis=1)
    found = detect(shifted)
    assert (found.shape, found.direction, found.speed) == ("square", None, None)


def test_a_jumping_shape_has_no_direction() -> None:
    order = np.random.default_rng(0).permutation(FRAMES)
    assert detect(draw(SCENE, PLACEMENT)[:, order]).direction is None


def test_two_shapes_are_no_clear_object() -> None:
    clip = draw(SCENE, PLACEMENT)
    twice = np.minimum(np.roll(clip, -16, axis=2), np.roll(clip, 16, axis=2))
    assert detect(twice) == Detection(background="gray")


def test_a_shape_that_vanishes_is_no_clear_object() -> None:
    clip = draw(SCENE, PLACEMENT)
    clip[:, FRAMES // 2 :] = clip[:, :1, :1, :1]
    assert detect(clip) == Detection(background="gray")


def test_missing_frames_do_not_change_the_speed() -> None:
    clip = draw(SCENE, PLACEMENT)
    clip[:, -3:] = clip[:, :1, :1, :1]
    assert asdict(detect(clip)) == asdict(SCENE)


def test_a_faded_colour_has_no_name() -> None:
    clip = draw(SCENE, PLACEMENT)
    found = detect(clip[:, :1, :1, :1] + 0.4 * (clip - clip[:, :1, :1, :1]))
    assert (found.colour, found.shape) == (None, "square")


def test_a_clip_that_is_not_finite_shows_nothing() -> None:
    clip = draw(SCENE, PLACEMENT)
    clip[0, 0, 0, 0] = np.nan
    assert detect(clip) == NOTHING


def test_the_size_of_the_frame_does_not_matter() -> None:
    doubled: NDArray[np.float32] = draw(SCENE, PLACEMENT).repeat(2, axis=2).repeat(2, axis=3)
    assert asdict(detect(doubled)) == asdict(SCENE)


@pytest.mark.parametrize(
    "shape", [(FRAMES, 3, SIZE, SIZE), (3, 2, SIZE, SIZE), (3, FRAMES, 8, SIZE), (3, FRAMES, SIZE)]
)
def test_a_wrong_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(DvdqError, match="detect: expected"):
        detect(np.zeros(shape))


def test_the_clip_is_left_alone() -> None:
    clip = draw(SCENE, PLACEMENT)
    clip.flags.writeable = False
    assert asdict(detect(clip)) == asdict(SCENE)
