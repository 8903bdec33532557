"""``latency.md``: passes, where their time goes, videos, and linears by shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dvdq_eval.latency.results import Latency, LayerTime, MethodTime
from dvdq_eval.methods import title_of
from dvdq_eval.sheets.markdown import markdown
from dvdq_models.cli.console import megabytes


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
        _passes(latency),
        f"Where the time goes, in {'eager ' if latency.compiled else ''}passes taken apart:\n",
        _parts(latency),
        "The transformer in all steps of a video, without text encoder and autoencoder:\n",
        _videos(latency),
    ]
    if layers:
        parts += ["Linears of each kind, and the mean of their medians:\n", _layers(latency)]
    return "\n".join(parts)


def _passes(latency: Latency) -> str:
    header = ["method", "seconds a pass (p20–p80)", "times as fast", "weights", "peak memory"]
    return markdown(
        header,
        (
            [
                title_of(method.label, method.bits),
                f"{_seconds(method.step.p50)} ({_seconds(method.step.p20)}–{_seconds(method.step.p80)})",
                f"{method.ratio:.2f} ×",
                megabytes(method.weight_bytes),
                "–" if method.peak_bytes is None else megabytes(method.peak_bytes),
            ]
            for method in latency.methods
        ),
    )


def _parts(latency: Latency) -> str:
    names = ("rotate_quantize", "products", "attention", "rest")
    header = ["method", "rotate and quantize", *names[1:]]

    def cells(method: MethodTime) -> Iterator[str]:
        yield title_of(method.label, method.bits)
        for name in names:
            part = getattr(method.parts, name)
            yield f"{_seconds(part)} ({part / method.parts.total:.0%})"

    return markdown(header, map(cells, latency.methods))


def _videos(latency: Latency) -> str:
    header = ["method", "steps", "passes a step", "seconds", "times as fast"]
    return markdown(
        header,
        (
            [
                title_of(video.label, video.bits),
                " + ".join(f"{steps} at {width} bits" for width, steps in video.steps_at.items()),
                str(video.passes),
                _seconds(video.seconds),
                f"{video.ratio:.2f} ×",
            ]
            for video in latency.videos
        ),
    )


def _layers(latency: Latency) -> str:
    header = ["method", "out × in", "tokens", "linears", "rotate and quantize (ms)", "product (ms)", "kernels"]

    def rows() -> Iterator[list[str]]:
        for method in latency.methods:
            kinds: dict[tuple[int, int, int, str], list[LayerTime]] = defaultdict(list)
            for layer in method.layers:
                kinds[layer.out_features, layer.in_features, layer.tokens, layer.kernels].append(layer)
            for (out, width, tokens, kernels), same in kinds.items():
                quantizing = sum(layer.rotate_quantize for layer in same) / len(same)
                product = sum(layer.product for layer in same) / len(same)
                milliseconds = [f"{1e3 * part:.3f}" for part in (quantizing, product)]
                yield [
                    title_of(method.label, method.bits),
                    f"{out} × {width}",
                    f"{tokens:,}",
                    str(len(same)),
                    *milliseconds,
                    kernels,
                ]

    return markdown(header, rows())


def _seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
