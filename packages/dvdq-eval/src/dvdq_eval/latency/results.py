"""``latency.json``: how long one pass of a transformer takes, and where the time goes.

The file is one object with the fields of :class:`Latency`; nested objects have the fields of the classes below. Times
are seconds, sizes bytes. What does not exist here, such as the peak memory of a device that counts none, is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class Timing:
    """Percentiles of the seconds of one pass over ``rounds`` rounds, in which the methods take turns."""

    p20: float
    p50: float
    p80: float
    rounds: int


@dataclass(frozen=True)
class Parts:
    """Median seconds of a pass that is taken apart, by what ran; together ``total``, which is more than an untouched
    pass takes: taking times costs time.

    Attributes:
        rotate_quantize: smoothing, rotating and quantizing activations.
        products: products with weights that a recipe quantizes, in integers or, at full precision, in floats; where
            activations stay full (W4A16), rotating them is part of it.
        attention: scores and values, without the linears around them.
        rest: norms, modulation, embeddings, what the recipe keeps, and what taking times costs.
    """

    rotate_quantize: float
    products: float
    attention: float
    rest: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.rotate_quantize + self.products + self.attention + self.rest


@dataclass(frozen=True)
class LayerTime:
    """The median seconds that one linear took in passes that were taken apart; ``kernels`` is the plan that ran."""

    name: str
    out_features: int
    in_features: int
    tokens: int
    rotate_quantize: float
    product: float
    kernels: str


@dataclass(frozen=True)
class MethodTime:
    """One method at one activation width.

    Attributes:
        label, bits: e.g. ``DVD-Quant`` and ``W4A4``; full precision has no bits.
        attention: the backend of diffusers that ran.
        step: seconds of an untouched pass.
        ratio: full precision's median over this one's, in this run.
        parts, layers: where the time goes.
        peak_bytes: of the device's memory during a pass, weights included, inputs not; null where the device does not
            count.
        weight_bytes: of the transformer's parameters on the device.
    """

    label: str
    bits: str
    attention: str
    step: Timing
    ratio: float
    parts: Parts
    layers: tuple[LayerTime, ...]
    peak_bytes: int | None
    weight_bytes: int


@dataclass(frozen=True)
class VideoTime:
    """All denoising steps of a video, from the times of a pass: ``Σ steps at b bits × passes × seconds at b bits``.

    Attributes:
        label, bits: the method, e.g. ``DVD-Quant`` and ``W4A6``, which is any mix of widths.
        steps_at: how many steps run at each width, e.g. ``{"8": 21, "4": 29}``; full precision's key is ``"16"``.
        passes: of the transformer in each step: 2 with classifier-free guidance.
        trace: where the mix comes from: the file of a video's trace, or ``constant``.
        seconds, ratio: the sum of medians, and full precision's over it.
    """

    label: str
    bits: str
    steps_at: dict[str, int]
    passes: int
    trace: str
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Latency:
    """One run.

    Attributes:
        model: a name, e.g. of the configuration that was run.
        weights: ``random``, or the model that they came with.
        frames, height, width: of the video in pixels; ``tokens`` of it in the transformer.
        batch: how many samples a pass has.
        device: its name.
        dtype: of full precision.
        methods, videos: what was measured, and what follows from it.
        provenance: versions, machine, commit.
        in_turns: whether all methods took turns in every round; if not, all did not fit on the device at once, and
            each was measured after the one before.
        compiled: whether untouched passes ran blocks compiled by ``torch.compile``; those taken apart never do.
    """

    model: str
    weights: str
    frames: int
    height: int
    width: int
    tokens: int
    batch: int
    device: str
    dtype: str
    methods: tuple[MethodTime, ...]
    videos: tuple[VideoTime, ...]
    provenance: dict[str, Any]
    in_turns: bool = True
    compiled: bool = False
    schema: int = SCHEMA
