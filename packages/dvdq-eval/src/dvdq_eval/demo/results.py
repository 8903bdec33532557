"""``results.json``: everything that the demo measured. The tables and figures of the docs are made from it.

The file is one object with the fields of :class:`Results`; nested objects have the fields of the classes below. A
number that does not exist, such as the distance of full precision from itself, is ``null``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dvdq_eval.internals import ChannelPeaks, LayerError
from dvdq_eval.methods import title_of
from dvdq_eval.videos.records import Trial
from dvdq_models.switching.schedule import StepDecision

SCHEMA = 2


@dataclass(frozen=True)
class Row:
    """One method over all prompts; quality is the mean of its videos' distances from full precision.

    Attributes:
        method: its label, e.g. ``DVD-Quant``.
        bits: e.g. ``W4A6``; empty for full precision.
        bytes: size of the transformer's checkpoint, numbers that are not quantized counted in 16 bits.
        compression: full precision's ``bytes`` over this row's.
        average_bits: mean activation width over all steps of all videos; null for full precision.
        psnr_db, ssim: of frames in 8 bits; psnr_db is null if a video equals full precision's.
        latent_error: ``‖a - b‖ / ‖b‖`` of the final latents.
        adherence: for each word of a scene, the share of videos that show it.
        quantize_seconds: wall time here, for all layers.
        video_seconds: wall time here of the transformer's passes for one video, the median over all videos.
        speedup: full precision's ``video_seconds`` over this row's.
    """

    method: str
    bits: str
    bytes: int
    compression: float
    average_bits: float | None
    psnr_db: float | None
    ssim: float | None
    latent_error: float | None
    adherence: dict[str, float]
    quantize_seconds: float | None
    video_seconds: float
    speedup: float

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        return title_of(self.method, self.bits)


@dataclass(frozen=True)
class Video:
    """One video: the values of a row for it alone, and for each word whether the video shows it."""

    method: str
    bits: str
    prompt: str
    seed: int
    psnr_db: float | None
    ssim: float | None
    latent_error: float | None
    adherence: dict[str, bool]


@dataclass(frozen=True)
class Trace:
    """The bit switch of one video."""

    prompt: str
    average_bits: float
    steps: list[StepDecision]


@dataclass(frozen=True)
class BitSwitching:
    """δ, its trials on a prompt that is not among the others, and what the switch then did on each of those."""

    delta: float
    wanted_average: float
    trials: list[Trial]
    videos: list[Trace]


@dataclass(frozen=True)
class Results:
    """All of it; ``provenance`` holds versions, machine, commit, seed, settings and seconds."""

    rows: list[Row]
    videos: list[Video]
    trace: BitSwitching
    layers: list[LayerError]
    activations: ChannelPeaks
    provenance: dict[str, Any]
    schema: int = SCHEMA
