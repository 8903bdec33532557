"""What quantization does inside a model: the error of each weight, the peaks of a layer's channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from dvdq_eval.charts.chart import Chart, Charts
from dvdq_eval.charts.plot import Plot
from dvdq_eval.internals import LayerError

LEGEND = (("rival", "min-max"), ("ours", "BGR"))
_BLOCKS = {"blocks": "block", "transformer_blocks": "double", "single_transformer_blocks": "single"}
"""What the lists of blocks of both families are called in a chart."""


def error_charts(layers: Sequence[LayerError]) -> Charts:
    """Figure 3: the error of each layer's weight under both grids."""
    return Charts([Chart(layer_errors(layers))], LEGEND)


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
