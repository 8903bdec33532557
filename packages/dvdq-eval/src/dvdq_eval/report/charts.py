"""The three charts of the demo's report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dvdq_eval.demo.results import BitSwitching, Trace
from dvdq_eval.internals import ChannelPeaks, LayerError
from dvdq_eval.report.svg import Plot

_BLOCKS = {"blocks": "block", "transformer_blocks": "double", "single_transformer_blocks": "single"}
"""What the lists of blocks of both families are called in a chart."""


def bit_trace(trace: Trace, switching: BitSwitching) -> str:
    """One video's switch: the sum that decided each step against δ, above a strip of the widths that followed."""
    steps = trace.steps
    sums = [step.accumulated for step in steps if step.accumulated is not None]
    top = 1.15 * max([switching.delta, *sums])
    plot = Plot(
        f"Accumulated change before each step of {trace.prompt}, and the activation bits chosen",
        (0.0, float(len(steps))),
        (0.0, top),
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
        css = "high" if step.bits == high else "low"
        tip = f"step {step.step + 1}: {step.bits} bits, {step.reason}"
        if step.accumulated is not None:
            plot.bar(step.step + 0.15, step.step + 0.85, 0.0, step.accumulated, f"{css} soft", tip)
        left, right = plot.x(step.step + 0.06), plot.x(step.step + 0.94)
        plot.marks.append(
            f'<rect class="{css}" x="{left:.1f}" y="{strip}" width="{right - left:.1f}" height="18" rx="2">'
            f"<title>{tip}</title></rect>"
        )
        if len(steps) <= 40:
            plot.text((left + right) / 2, strip + 13, str(step.bits), "cell mid")
    plot.line([(0.0, switching.delta), (float(len(steps)), switching.delta)], "threshold")
    plot.text(plot.width - 14, plot.y(switching.delta) - 6, f"δ = {switching.delta:.3g}", "tick end strong")
    every = 5 if len(steps) > 12 else 1
    numbers = [0, *range(every - 1, len(steps), every)] if every > 1 else list(range(len(steps)))
    for number in numbers:
        plot.text(plot.x(number + 0.5), strip + 34, str(number + 1), "tick mid")
    plot.x_axis([])
    return str(plot)


def layer_errors(layers: Sequence[LayerError]) -> str:
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
    return str(plot)


def channel_peaks(peaks: ChannelPeaks, *, rotated: bool) -> str:
    """The largest magnitude of each channel; both charts share one scale."""
    values = peaks.after if rotated else peaks.before
    where = "after" if rotated else "before"
    plot = Plot(
        f"Largest magnitude of each input channel of {peaks.layer} {where} rotation",
        (0.0, float(len(values))),
        (0.0, 1.05 * max(*peaks.before, *peaks.after)),
        x_label="input channel",
        y_label="max |x|",
        width=560,
        height=230,
    )
    plot.y_axis(count=4)
    plot.area(values, "ours solid" if rotated else "rival solid")
    quarter = len(values) / 4
    plot.x_axis([(i * quarter, f"{i * quarter:.0f}") for i in range(5)])
    return str(plot)


def _block(name: str) -> str:
    """``blocks.3.attn1.to_q`` belongs to ``block 3``; a layer outside any block to its own first word."""
    first, *others = name.split(".")
    return f"{_BLOCKS[first]} {others[0]}" if first in _BLOCKS else first
