"""What quantization does inside a model: the error of each weight, the peaks of channels, bits over denoising steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from dvdq_eval.charts.plot import LEFT, Chart, Charts, Plot
from dvdq_eval.internals import LayerError
from dvdq_models.switching.schedule import StepDecision

GRIDS = (("rival", "min-max"), ("ours", "BGR"))
WIDTHS = (("high", "8-bit step"), ("low", "4-bit step"))
_ROW = 44
_BLOCKS = {"blocks": "block", "transformer_blocks": "double", "single_transformer_blocks": "single"}
"""What the lists of blocks of both families are called in a chart."""


def error_charts(layers: Sequence[LayerError]) -> Charts:
    """Figure 3: the error of each layer's weight under both grids."""
    return Charts([Chart(layer_errors(layers))], GRIDS)


def peak_charts(layer: str, peaks: Mapping[str, Sequence[float]], crest: Mapping[str, float]) -> Charts:
    """Figure 4: a layer's channels, first as they come and then under each rotation, up to the same height."""
    highest = max(max(heights) for heights in peaks.values())
    charts = [
        Chart(
            channel_peaks(layer, label, heights, highest, ours=place > 0),
            label.capitalize(),
            f"crest {crest[label]:.1f}",
        )
        for place, (label, heights) in enumerate(peaks.items())
    ]
    return Charts(charts)


def layer_errors(layers: Sequence[LayerError]) -> Markup:
    """Weight error of each layer under both grids, in the model's order, blocks apart."""
    top = 1.1 * max(layer.minmax_error for layer in layers)
    plot = Plot(
        "Relative squared weight error of each quantized layer, min-max and BGR",
        (-1.0, float(len(layers))),
        (0.0, 100.0 * top),
        x_label="layers, grouped by block",
        y_label="error, % of ‖W‖²",
        height=290,
    )
    plot.y_axis()
    position = 0
    labels = []
    for number, (block, members) in enumerate(groupby(layers, key=lambda layer: _block(layer.name))):
        group = list(members)
        if number % 2 == 0:
            plot.bar(position - 0.5, position + len(group) - 0.5, 0.0, 100.0 * top, "band")
        labels.append((position + (len(group) - 1) / 2, block))
        for offset, layer in enumerate(group):
            x, minmax, bgr = float(position + offset), 100.0 * layer.minmax_error, 100.0 * layer.bgr_error
            plot.line([(x, minmax), (x, bgr)], "stem")
            plot.dot(x, minmax, "rival", f"{layer.name}: min-max {minmax:.3f} %")
            plot.dot(x, bgr, "ours", f"{layer.name}: BGR {bgr:.3f} %")
        position += len(group)
    plot.x_axis(labels)
    return plot.markup


def channel_peaks(layer: str, label: str, peaks: Sequence[float], highest: float, *, ours: bool) -> Markup:
    """The largest magnitude of each channel, up to ``highest``, the same in charts that are compared."""
    plot = Plot(
        f"Largest magnitude of each input channel of {layer}, {label}",
        (0.0, float(len(peaks))),
        (0.0, 1.05 * highest),
        x_label="input channel",
        y_label="max |x|",
        width=560,
        height=230,
    )
    plot.y_axis(count=4)
    plot.area(peaks, "ours solid" if ours else "rival solid")
    quarter = len(peaks) / 4
    plot.x_axis([(i * quarter, f"{i * quarter:.0f}") for i in range(5)])
    return plot.markup


def _block(name: str) -> str:
    """``blocks.3.attn1.to_q`` belongs to ``block 3``; a layer outside any block to its own first word."""
    first, *others = name.split(".")
    return f"{_BLOCKS[first]} {others[0]}" if first in _BLOCKS else first


def bit_trace(prompt: str, steps: Sequence[StepDecision], delta: float) -> Markup:
    """One video's switch: the sum that decided each step against δ, above a strip of the widths that followed."""
    sums = [step.accumulated for step in steps if step.accumulated is not None]
    plot = Plot(
        f"Accumulated change before each step of {prompt}, and the activation bits chosen",
        (0.0, float(len(steps))),
        (0.0, 1.15 * max([delta, *sums])),
        x_label="denoising step",
        y_label="sum of changes",
        width=560,
        height=230,
        bottom=76,
    )
    plot.y_axis(count=3)
    high = max(step.bits for step in steps)
    strip = plot.height - plot.bottom + 8
    for step in steps:
        css = "skipped" if step.skipped else "high" if step.bits == high else "low"
        tip = f"step {step.step + 1}: {'skipped' if step.skipped else f'{step.bits} bits'}, {step.reason}"
        if step.accumulated is not None:
            plot.bar(step.step + 0.15, step.step + 0.85, 0.0, step.accumulated, f"{css} soft", tip)
        left, right = plot.x(step.step + 0.06), plot.x(step.step + 0.94)
        plot.box(left, strip, right - left, 18, css, tip)
        if len(steps) <= 40 and not step.skipped:
            plot.text((left + right) / 2, strip + 13, str(step.bits), "cell mid")
    plot.line([(0.0, delta), (float(len(steps)), delta)], "threshold")
    plot.text(plot.width - 14, plot.y(delta) - 6, f"δ = {delta:.3g}", "tick end strong")
    _step_numbers(plot, len(steps), strip + 34)
    return plot.markup


def bit_shares(rows: Sequence[tuple[str, Sequence[float]]]) -> Markup:
    """One strip a method: for each step, the share of videos that ran it at the high width."""
    steps = max(len(shares) for _, shares in rows)
    plot = Plot(
        "Share of videos at the high width in each denoising step, by method",
        (0.0, float(steps)),
        (0.0, 1.0),
        x_label="denoising step",
        height=_ROW * len(rows) + 46,
    )
    for row, (label, shares) in enumerate(rows):
        top = _ROW * row + 22
        plot.text(LEFT, top - 6, label, "strong")
        for step, share in enumerate(shares):
            left, right = plot.x(step + 0.06), plot.x(step + 0.94)
            tip = f"{label}, step {step + 1}: {share:.0%} of the videos at the high width"
            plot.box(left, top, right - left, 18, "low")
            plot.box(left, top, right - left, 18, "high", tip, opacity=share)
    _step_numbers(plot, steps, plot.height - 24)
    return plot.markup


def _step_numbers(plot: Plot, steps: int, y: float) -> None:
    """Numbers from 1 below the steps, of more than twelve every fifth."""
    every = 5 if steps > 12 else 1
    for number in (0, *range(every - 1, steps, every)) if every > 1 else range(steps):
        plot.text(plot.x(number + 0.5), y, str(number + 1), "tick mid")
    plot.x_axis([])
