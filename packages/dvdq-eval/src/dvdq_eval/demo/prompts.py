"""Which scenes the demo asks for."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from dvdq_models.moving_shapes.clips import Scene, split_scenes
from dvdq_reference.spec.errors import DvdqError


def choose_scenes(count: int, seed: int) -> tuple[Scene, ...]:
    """``count`` scenes that the model never saw in training, varied in their words.

    Scenes are shuffled with ``seed``; each next one is the first that adds the most words not shown yet. No result is
    looked at.
    """
    _, unseen = split_scenes()
    if not 1 <= count <= len(unseen):
        raise DvdqError("demo", where="prompts", expected=f"1 to {len(unseen)}", got=count)
    left = [unseen[i] for i in np.random.default_rng(seed).permutation(len(unseen))]
    chosen: list[Scene] = []
    for _ in range(count):
        shown = {word for scene in chosen for word in enumerate(astuple(scene))}
        best = max(left, key=lambda scene: len(set(enumerate(astuple(scene))) - shown))
        left.remove(best)
        chosen.append(best)
    return tuple(chosen)
