"""``latency.json`` and its tables: how long one pass of a transformer takes, and where the time goes.

The file is one object with the fields of :class:`Latency`; nested objects have the fields of the classes below. Times
are seconds, sizes bytes. What does not exist here, such as the peak memory of a device that counts none, is null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dvdq_eval.methods import title_of
from dvdq_eval.passes.subject import PassRecord
from dvdq_eval.sheets import Cell, Column, Sheet, markdown, megabytes, names, seconds, seconds_text, times

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
class Latency(PassRecord):
    """One run.

    Attributes:
        device: its name.
        dtype: of full precision.
        methods, videos: what was measured, and what follows from it.
        provenance: versions, machine, commit.
        in_turns: whether all methods took turns in every round; if not, all did not fit on the device at once, and
            each was measured after the one before.
        compiled: whether untouched passes ran blocks compiled by ``torch.compile``; those taken apart never do.
    """

    device: str
    dtype: str
    methods: tuple[MethodTime, ...]
    videos: tuple[VideoTime, ...]
    provenance: dict[str, Any]
    in_turns: bool = True
    compiled: bool = False
    schema: int = SCHEMA


METHOD = Column("method", first="ascending")


def latency_markdown(latency: Latency, *, layers: bool = True) -> str:
    """All of it for a page; without ``layers``, for a terminal."""
    weights = "random weights" if latency.weights == "random" else "weights of a checkpoint"
    rounds = min(method.step.rounds for method in latency.methods)
    order = "in which methods took turns" if latency.in_turns else "one method after another"
    compiled = ", blocks compiled" if latency.compiled else ""
    parts = [
        f"# One pass of {latency.model}, {latency.video}\n",
        f"{latency.tokens:,} tokens of video, {weights}, on {latency.device}, full precision in {latency.dtype}"
        f"{compiled}. Medians of {rounds} rounds, {order}.\n",
        markdown(passes_sheet(latency)),
        f"Where the time goes, in {'eager ' if latency.compiled else ''}passes taken apart:\n",
        markdown(parts_sheet(latency)),
        "The transformer in all steps of a video, without text encoder and autoencoder:\n",
        markdown(videos_sheet(latency)),
    ]
    if layers:
        parts += ["Linears of each kind, and the mean of their medians:\n", markdown(layers_sheet(latency))]
    return "\n".join(parts)


def passes_sheet(latency: Latency) -> Sheet:
    """A pass of each method, untouched."""
    columns = [
        METHOD,
        Column("attention", "the backend that ran", "ascending", words=True, aside=True),
        Column("seconds a pass", "median, with the 20th and 80th percentile", "ascending", note="p20–p80"),
        Column("times as fast", "as full precision in the same run"),
        Column("weights", "of the transformer on the device", "ascending"),
        Column("peak memory", "of the device during a pass", "ascending"),
    ]
    rows = [
        [
            name,
            Cell(method.attention, method.attention),
            seconds(method.step.p50, note=f"{seconds_text(method.step.p20)}–{seconds_text(method.step.p80)}"),
            times(method.ratio),
            megabytes(method.weight_bytes),
            megabytes(method.peak_bytes),
        ]
        for name, method in zip(_names(latency.methods), latency.methods, strict=True)
    ]
    return Sheet("A pass of the transformer", columns, rows)


def parts_sheet(latency: Latency) -> Sheet:
    """Where the time goes, in passes that were taken apart."""
    parts = ("rotate_quantize", "products", "attention", "rest")
    columns = [METHOD, *(Column(part.replace("_", " and "), first="ascending") for part in parts)]
    rows = []
    for name, method in zip(_names(latency.methods), latency.methods, strict=True):
        taken = [getattr(method.parts, part) for part in parts]
        rows.append([name, *(seconds(part, note=f"{part / method.parts.total:.0%}") for part in taken)])
    return Sheet("Seconds of a pass by what they go to", columns, rows)


def videos_sheet(latency: Latency) -> Sheet:
    """All denoising steps of a video, from the seconds of its passes."""
    columns = [
        METHOD,
        Column("steps", "at each width of the activations", "ascending"),
        Column("passes a step"),
        Column("seconds", "of all denoising steps: the sum of medians", "ascending"),
        Column("times as fast", "as full precision"),
        Column("mix from", "where the number of steps at each width comes from", "ascending", words=True, aside=True),
    ]
    rows = []
    for name, video in zip(_names(latency.videos), latency.videos, strict=True):
        mix = " + ".join(f"{steps} at {width} bits" for width, steps in video.steps_at.items())
        passes = Cell(str(video.passes), video.passes)
        trace = Cell(video.trace, video.trace)
        rows.append([name, Cell(mix, mix), passes, seconds(video.seconds), times(video.ratio), trace])
    return Sheet("A video, from the seconds of its passes", columns, rows)


def layers_sheet(latency: Latency) -> Sheet:
    """Linears of one shape and plan together, and the mean of their medians."""
    columns = [
        METHOD,
        Column("out × in", "of the linear", "ascending"),
        Column("tokens"),
        Column("linears", "of this shape"),
        Column("rotate and quantize (ms)", "the mean of their medians"),
        Column("product (ms)", "the mean of their medians"),
        Column("kernels", "the plan that ran", "ascending", words=True),
    ]
    rows = []
    for name, method in zip(_names(latency.methods), latency.methods, strict=True):
        kinds: dict[tuple[int, int, int, str], list[LayerTime]] = defaultdict(list)
        for layer in method.layers:
            kinds[layer.out_features, layer.in_features, layer.tokens, layer.kernels].append(layer)
        for (out, width, tokens, kernels), same in kinds.items():
            means = (sum(getattr(layer, part) for layer in same) / len(same) for part in ("rotate_quantize", "product"))
            rows.append(
                [
                    name,
                    Cell(f"{out} × {width}", out * width),
                    Cell(f"{tokens:,}", tokens),
                    Cell(str(len(same)), len(same)),
                    *(Cell(f"{1e3 * mean:.3f}", mean) for mean in means),
                    Cell(kernels, kernels),
                ]
            )
    return Sheet("Linears by shape", columns, rows, folded=True)


def _names(of: Sequence[MethodTime] | Sequence[VideoTime]) -> list[Cell]:
    return names([title_of(each.label, each.bits) for each in of])
