"""What is measured: a transformer's configuration, where its weights come from, and the video that it works on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from dvdq_models.families import family_of
from dvdq_models.families.configurations import empty_transformer, stored_recipe
from dvdq_models.families.example_inputs import example_inputs
from dvdq_models.families.family import Inputs, patch_of
from dvdq_models.families.pipelines import is_pipeline, latent_size, transformer_configs
from dvdq_models.moving_shapes import BUNDLED
from dvdq_reference.spec.errors import DvdqError

PUBLISHED = {path.stem: path for path in sorted((Path(__file__).parent / "published").glob("*.json"))}
"""Configurations of published transformers by name; their weights are not here."""

STEPS = 50
"""Denoising steps of a video, as the pipelines of both families have them by default."""


@dataclass(frozen=True)
class PassRecord:
    """What the figures of a pass are of.

    Attributes:
        model: a name, e.g. of the configuration.
        weights: ``random``, or the model that they came with.
        frames, height, width: of the video in pixels; ``tokens`` of it in the transformer.
        batch: how many samples a pass has.
    """

    model: str
    weights: str
    frames: int
    height: int
    width: int
    tokens: int
    batch: int

    @property
    def video(self) -> str:
        """For people, e.g. ``81x480x832``."""
        return f"{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Subject:
    """A transformer and a video, e.g. ``open_subject("latency", "wan2.1-14b", "81x480x832")``.

    Attributes:
        name: for people, that of its study.
        config: the transformer's ``config.json``.
        weights: the transformer's folder; None for random weights.
        source: where weights come from, for people: ``random``, or the name.
        pipeline: the folder around it, if there is one.
        video: frames, height and width in pixels.
        latent: the same of the latents.
        text_tokens: of the prompt, padded; None is what the family's pipelines give.
        steps: that a video takes by default.
    """

    name: str
    config: Path
    weights: Path | None
    source: str
    pipeline: Path | None
    video: tuple[int, int, int]
    latent: tuple[int, int, int]
    text_tokens: int | None
    steps: int

    @property
    def tokens(self) -> int:
        """Of the video in the transformer, without those of the text."""
        return prod(size // patch for size, patch in zip(self.latent, _patch(self.config), strict=True))

    @property
    def passes(self) -> int:
        """Of the transformer in a denoising step, as the family's pipelines guide it."""
        return family_of(empty_transformer(self.config)).passes

    @property
    def described(self) -> dict[str, Any]:
        """The fields of :class:`PassRecord`."""
        return vars(PassRecord(self.name, self.source, *self.video, self.tokens, batch=1))

    def inputs(self, transformer: Any, dtype: torch.dtype, device: torch.device) -> Inputs:
        """Keyword arguments of one pass of ``transformer``."""
        return example_inputs(transformer, self.latent, text_tokens=self.text_tokens, dtype=dtype, device=device)


def open_subject(
    operation: str, model: str, video: str | None, *, text_tokens: int | None = None, random: bool = False
) -> Subject:
    """The transformer that ``model`` names, on a video.

    Of a pipeline with two transformers, which have one architecture, the first is taken.

    Args:
        operation: for errors.
        model: a bundled pipeline (``wan``, ``hunyuan-video``), a name in :data:`PUBLISHED`, a folder of a pipeline or a
            transformer, or a ``config.json``. The last and a folder without weights have random ones.
        video: frames x height x width, e.g. ``81x480x832``; None is a bundled pipeline's own.
        text_tokens: of the prompt; None is a bundled pipeline's own, or what the family's pipelines give.
        random: whether weights that are there are left alone, and random ones taken.

    Raises:
        DvdqError: no such model, one that is quantized already, no video, or a video that the latents cannot show.
    """
    size, steps = None if video is None else _parse(operation, video), STEPS
    if model in BUNDLED:
        BUNDLED[model].prepare()
        path, call = BUNDLED[model].folder, BUNDLED[model].generation
        size = size or (call["num_frames"], call["height"], call["width"])
        text_tokens, steps = text_tokens or call["max_sequence_length"], call["num_inference_steps"]
    else:
        path = PUBLISHED.get(model, Path(model))
    if not path.exists():
        expected = f"a folder, a config.json, or one of {', '.join([*BUNDLED, *PUBLISHED])}"
        raise DvdqError(operation, where=model, expected=expected, got="none of them")
    if size is None:
        raise DvdqError(operation, where="--video", expected="frames x height x width, as 81x480x832", got="none")
    config = next(iter(transformer_configs(path).values()))
    weights = config.parent if path.is_dir() and not random and any(config.parent.glob("*.safetensors")) else None
    if weights is not None and stored_recipe(config) is not None:
        expected = "weights in full precision, or the config.json alone, for random ones"
        raise DvdqError(operation, where=str(weights), expected=expected, got="a quantized checkpoint")
    pipeline = path if is_pipeline(path) else None
    folder = path.parent if path.name == "config.json" else path
    name = f"moving shapes, {model}" if model in BUNDLED else folder.resolve().name.removesuffix(".json")
    source = "random" if weights is None else name
    latent = _latent(operation, path, config, size)
    return Subject(name, config, weights, source, pipeline, size, latent, text_tokens, steps)


def _parse(operation: str, video: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", video)
    if match is None:
        raise DvdqError(operation, where="--video", expected="frames x height x width, as 81x480x832", got=video)
    frames, height, width = map(int, match.groups())
    return frames, height, width


def _latent(operation: str, path: Path, config: Path, video: tuple[int, int, int]) -> tuple[int, int, int]:
    """The latents of ``video``, which must be whole ones and make whole tokens."""
    family, patch = family_of(empty_transformer(config)), _patch(config)
    latent = latent_size(path, video, family)
    smaller = latent_size(path, (video[0] - 1, video[1] - 1, video[2] - 1), family)
    # One frame or pixel less has fewer latents only where the last latent is full.
    whole = all(less < size for less, size in zip(smaller, latent, strict=True))
    if not whole or any(size % part for size, part in zip(latent, patch, strict=True)):
        expected = f"whole latents, in patches of {'x'.join(map(str, patch))}, e.g. 81x480x832"
        raise DvdqError(operation, where="--video", expected=expected, got="x".join(map(str, video)))
    return latent


def _patch(config: Path) -> tuple[int, int, int]:
    """Frames, height and width of the latents that become one token."""
    transformer: Any = empty_transformer(config)
    return patch_of(transformer.config)
