"""The tables of a run: passes, where their time goes, videos, and linears by shape; ``latency.md`` has them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dvdq_eval.latency.results import Latency, LayerTime, MethodTime, VideoTime
from dvdq_eval.methods import title_of
from dvdq_eval.sheets.figures import megabytes, names, seconds, seconds_text, times
from dvdq_eval.sheets.markdown import markdown
from dvdq_eval.sheets.sheet import Cell, Column, Sheet

METHOD = Column("method", first="ascending")


def latency_markdown(latency: Latency, *, layers: bool = True) -> str:
    """All of it for a page; without ``layers``, for a terminal."""
    video = f"{latency.frames}x{latency.height}x{latency.width}"
    weights = "random weights" if latency.weights == "random" else "weights of a checkpoint"
    rounds = min(method.step.rounds for method in latency.methods)
    order = "in which methods took turns" if latency.in_turns else "one method after another"
    compiled = ", blocks compiled" if latency.compiled else ""
    parts = [
        f"# One pass of {latency.model}, {video}\n",
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
