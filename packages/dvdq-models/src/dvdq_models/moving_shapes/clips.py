"""The moving-shapes world: a scene described by five words, drawn as a clip whose truth is known.

A scene is one anti-aliased shape that moves along a straight line over a plain background, so that a prompt
("a red circle moves left quickly over a gray background") says everything that a viewer must find in the video.
Clips are ``float32 [3, FRAMES, SIZE, SIZE]`` in ``[-1, 1]``, the range of diffusers' video autoencoders.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAMES = 17
SIZE = 64

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.15, 0.25, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.60, 0.15, 0.75),
    "cyan": (0.15, 0.80, 0.85),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.05, 0.05, 0.05),
    "gray": (0.45, 0.45, 0.45),
    "white": (0.95, 0.95, 0.95),
    "blue": COLOURS["blue"],
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS: dict[str, float] = {"slowly": 14.0, "quickly": 28.0}
"""Pixels travelled from the first frame to the last."""


@dataclass(frozen=True)
class Scene:
    """What a prompt says: the truth against which a video is judged."""

    colour: str
    shape: str
    direction: str
    speed: str
    background: str

    @property
    def prompt(self) -> str:
        """The scene in words, e.g. ``"a red circle moves left quickly over a gray background"``."""
        return f"a {self.colour} {self.shape} moves {self.direction} {self.speed} over a {self.background} background"


@dataclass(frozen=True)
class Placement:
    """What a prompt leaves open, in pixels: the middle of the path and the radius of a circle of the shape's area."""

    centre: tuple[float, float]
    radius: float


def all_scenes() -> tuple[Scene, ...]:
    """Every scene in which the shape differs from its background, in a fixed order."""
    words = itertools.product(COLOURS, SHAPES, DIRECTIONS, SPEEDS, BACKGROUNDS)
    return tuple(Scene(*w) for w in words if w[0] != w[4])


def split_scenes(held_out: int = 64, seed: int = 0) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """All scenes as (training, unseen); the ``held_out`` unseen ones are drawn once with ``seed``."""
    scenes = all_scenes()
    unseen = set(np.random.default_rng(seed).permutation(len(scenes))[:held_out].tolist())
    training = tuple(s for i, s in enumerate(scenes) if i not in unseen)
    return training, tuple(s for i, s in enumerate(scenes) if i in unseen)


def random_placement(rng: np.random.Generator) -> Placement:
    """A placement that keeps every shape of every speed inside the frame."""
    x, y = SIZE / 2 + rng.uniform(-4.0, 4.0, size=2)
    return Placement((float(x), float(y)), float(rng.uniform(8.5, 11.5)))


def draw(scene: Scene, placement: Placement) -> NDArray[np.float32]:
    """The clip of ``scene`` at ``placement``: float32 ``[3, FRAMES, SIZE, SIZE]`` in ``[-1, 1]``.

    Coverage of a pixel is its signed distance to the outline, clipped to half a pixel on either side: exact for
    straight edges, and within 1/(8 radius) for the circle.
    """
    progress = np.linspace(-0.5, 0.5, FRAMES) * SPEEDS[scene.speed]
    step = np.array(DIRECTIONS[scene.direction], dtype=np.float64)
    centres = np.array(placement.centre) + progress[:, None] * step
    pixel = np.arange(SIZE) + 0.5
    dx = pixel[None, None, :] - centres[:, 0, None, None]
    dy = pixel[None, :, None] - centres[:, 1, None, None]
    inside = np.clip(0.5 - signed_distance(scene.shape, dx, dy, placement.radius), 0.0, 1.0)
    front = np.array(COLOURS[scene.colour])[:, None, None, None]
    back = np.array(BACKGROUNDS[scene.background])[:, None, None, None]
    return np.asarray((back + (front - back) * inside) * 2.0 - 1.0, dtype=np.float32)


def signed_distance(shape: str, dx: NDArray[np.float64], dy: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Distance to the outline in pixels, negative inside; the three shapes have nearly the same area."""
    if shape == "circle":
        return np.asarray(np.hypot(dx, dy) - radius)
    if shape == "square":
        return np.asarray(np.maximum(np.abs(dx), np.abs(dy)) - radius * 0.886)
    # An equilateral triangle that points up: three half-planes at its inradius, lowered so that its height is centred.
    inradius = radius * 0.777
    below = dy - 0.5 * inradius
    slanted = 0.5 * np.sqrt(3.0) * np.abs(dx) - 0.5 * below
    return np.asarray(np.maximum(below, slanted) - inradius)
