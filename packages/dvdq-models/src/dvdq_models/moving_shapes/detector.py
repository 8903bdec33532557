"""What a viewer would read off a moving-shapes clip, found without any network.

Each word of a scene is measured by itself, in units of the generator's palette and sizes, and a word that cannot be
seen clearly is ``None``: the detector never guesses. Its limits are wide enough for an autoencoder's blur and narrow
enough that a clip without one plain moving shape is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dvdq_models.moving_shapes.clips import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZE,
    SPEEDS,
    Scene,
    signed_distance,
)
from dvdq_reference.spec.errors import DvdqError

Floats = NDArray[np.float64]

COLOUR_TOLERANCE = 0.24
"""Largest RGB distance (each channel 0 to 1) at which a colour still bears its name: half the closest pair's."""
AREA_RANGE = (0.025, 0.25)
"""Shares of the image that a shape may cover; the generator draws 0.055 to 0.10."""
SHAPE_ERROR = 0.15
"""Largest squared difference from the best silhouette, per pixel of its area."""
BLURS = (0.0, 1.0, 2.0)
"""Standard deviations in pixels of the blurs that a silhouette is looked for under."""
STRAIGHTNESS = 3.0
"""Largest root mean square distance from a straight, steady path, in pixels of a 64-pixel frame."""
MINIMAL_TRAVEL = 5.0
"""Shortest travel that has a direction, in the same pixels."""


@dataclass(frozen=True)
class Detection:
    """The words that a clip shows; ``None`` where nothing clear was seen."""

    colour: str | None = None
    shape: str | None = None
    direction: str | None = None
    speed: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class _Object:
    """The moving shape: its RGB colour, and for each frame that shows it clearly its time, coverage and moments."""

    colour: Floats
    time: Floats
    coverage: Floats
    area: Floats
    centre: Floats


def detect(video: ArrayLike) -> Detection:
    """The scene that ``video`` shows.

    Args:
        video: ``[3, frames, height, width]`` in ``[-1, 1]``, at least three frames of at least 16 x 16 pixels. Values
            outside are clipped; a clip with a value that is not finite shows nothing.
    """
    clip = np.asarray(video, dtype=np.float64)
    if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[1] < 3 or min(clip.shape[2:]) < 16:
        raise DvdqError("detect", expected="[3, frames >= 3, height >= 16, width >= 16]", got=list(clip.shape))
    if not np.isfinite(clip).all():
        return Detection()
    rgb = np.clip((clip + 1.0) / 2.0, 0.0, 1.0)
    border = np.concatenate([rgb[..., :2, :].reshape(3, -1), rgb[..., -2:, :].reshape(3, -1),
                             rgb[..., :2].reshape(3, -1), rgb[..., -2:].reshape(3, -1)], axis=1)  # fmt: skip
    behind = np.median(border, axis=1)
    plain = np.median(np.linalg.norm(border - behind[:, None], axis=0)) <= COLOUR_TOLERANCE / 2
    background = _nearest(behind, BACKGROUNDS) if plain else None
    seen = _find_object(rgb, behind)
    if seen is None:
        return Detection(background=background)
    direction, speed = _motion(seen, rgb.shape[2:])
    return Detection(_nearest(seen.colour, COLOURS), _silhouette(seen), direction, speed, background)


def adherence(video: ArrayLike, scene: Scene) -> dict[str, bool]:
    """For each word of ``scene``, whether ``video`` clearly shows it; keys are the fields of :class:`Scene`."""
    found = asdict(detect(video))
    return {word: found[word] == wanted for word, wanted in asdict(scene).items()}


def _nearest(colour: Floats, palette: Mapping[str, tuple[float, float, float]]) -> str | None:
    distances = {name: math.dist(colour, value) for name, value in palette.items()}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= COLOUR_TOLERANCE else None


def _find_object(rgb: Floats, behind: Floats) -> _Object | None:
    """The one region that stands out from the colour ``behind`` it, if at least 3 in 4 frames show it clearly."""
    contrast = np.linalg.norm(rgb - behind[:, None, None, None], axis=0)
    # The smallest shape covers more than 2 % of the frame, so the 98th percentile lies within it.
    strength = np.median(np.percentile(contrast, 98.0, axis=(1, 2)))
    if strength < COLOUR_TOLERANCE:
        return None
    masks = contrast > strength / 2.0
    core = ndimage.binary_erosion(masks, np.ones((1, 3, 3)), iterations=2)
    if not core.any():
        return None
    colour = np.median(rgb[:, core], axis=1)
    # Coverage is how far a pixel lies on the way from the background's colour to the object's.
    way = colour - behind
    coverage = np.clip(np.einsum("cfhw,c->fhw", rgb - behind[:, None, None, None], way) / (way @ way), 0.0, 1.0)
    frames = [i for i in range(len(masks)) if _keep_largest(coverage[i])]
    if len(frames) < max(3, 0.75 * len(masks)):
        return None
    coverage = coverage[frames]
    area = coverage.sum(axis=(1, 2))
    y, x = np.indices(coverage.shape[1:]) + 0.5
    centre = np.stack([(coverage * axis).sum(axis=(1, 2)) / area for axis in (x, y)], axis=1)
    return _Object(colour, np.linspace(-0.5, 0.5, len(masks))[frames], coverage, area, centre)


def _keep_largest(coverage: Floats) -> bool:
    """Clear everything but the largest region, in place; false if that is not most of what there is."""
    labels, count = ndimage.label(coverage > 0.5)
    if count == 0:
        return False
    sizes = np.bincount(labels.ravel())[1:]
    low, high = (share * coverage.size for share in AREA_RANGE)
    if not low <= sizes.max() <= high or sizes.max() < 0.8 * sizes.sum():
        return False
    coverage *= ndimage.binary_dilation(labels == sizes.argmax() + 1, iterations=2)
    return True


def _silhouette(seen: _Object) -> str | None:
    """The shape whose outline, with the measured area and centroids, leaves the least squared difference."""
    few = slice(None, None, max(1, len(seen.time) // 5))  # what a clip shows of a shape, five frames show
    coverage, area, centre = seen.coverage[few], seen.area[few], seen.centre[few]
    pixel_y, pixel_x = np.indices(coverage.shape[1:]) + 0.5
    radius = math.sqrt(float(np.median(seen.area)) / math.pi)
    errors = {}
    for shape in SHAPES:
        # The triangle is drawn with its height centred, half an inradius above its centroid.
        lowered = 0.5 * 0.777 * radius if shape == "triangle" else 0.0
        dx = pixel_x - centre[:, 0, None, None]
        dy = pixel_y - centre[:, 1, None, None] + lowered
        outline = np.clip(0.5 - signed_distance(shape, dx, dy, radius), 0.0, 1.0)
        blurred = (ndimage.gaussian_filter(outline, (0, blur, blur)) for blur in BLURS)
        differences = [((model - coverage) ** 2).sum(axis=(1, 2)) / area for model in blurred]
        errors[shape] = min(float(np.median(difference)) for difference in differences)
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    return best if errors[best] <= min(SHAPE_ERROR, 0.8 * errors[second]) else None


def _motion(seen: _Object, size: tuple[int, ...]) -> tuple[str | None, str | None]:
    """Direction and speed from the least-squares line through the centroids, in pixels of the generator's frame."""
    height, width = size
    position = seen.centre * SIZE / np.array([width, height])
    design = np.stack([np.ones_like(seen.time), seen.time], axis=1)
    line, *_ = np.linalg.lstsq(design, position, rcond=None)
    steadiness = math.sqrt(float(((position - design @ line) ** 2).sum(axis=1).mean()))
    major = int(np.abs(line[1]).argmax())
    travel = float(abs(line[1, major]))
    if steadiness > STRAIGHTNESS or travel < MINIMAL_TRAVEL or abs(line[1, 1 - major]) > 0.5 * travel:
        return None, None
    sign = int(np.sign(line[1, major]))
    direction = next(name for name, step in DIRECTIONS.items() if step[major] == sign)
    slow, fast = min(SPEEDS.values()), max(SPEEDS.values())
    if not 0.5 * slow <= travel <= 1.5 * fast:
        return direction, None
    return direction, min(SPEEDS, key=lambda name: abs(math.log(travel / SPEEDS[name])))
