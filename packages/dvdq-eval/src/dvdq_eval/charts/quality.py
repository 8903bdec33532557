"""What methods are worth and cost: quality with its 95 % intervals, and what a whole is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dvdq_eval.charts.plot import Chart, Plot
from dvdq_eval.intervals import Interval
from dvdq_eval.tables.rows import METRICS, Row

_LABEL = (60, 13)
"""Pixels across and down that a label needs."""
LEGEND = (("ours", "DVD-Quant"), ("rival", "other methods"))


@dataclass(frozen=True)
class Point:
    """A method: ``css`` is ``ours`` or ``rival``; ``label`` stands beside the dot if it is not empty."""

    name: str
    x: float
    y: Interval
    css: str
    label: str = ""


def tradeoff(points: Sequence[Point], x_label: str, y_label: str, exact: float | None) -> Markup:
    """A dot a method with its interval; ``exact`` is where full precision stands, which has no distance from itself."""
    plot = _plot(
        f"{y_label} against {x_label}", points, x_label, y_label, 1.12 * max([p.x for p in points] + [exact or 0])
    )
    if exact is not None:
        plot.line([(exact, plot.y_range[0]), (exact, plot.y_range[1])], "threshold")
        plot.text(plot.x(exact) - 6, 24, "full precision", "tick end")
    for point in sorted(points, key=lambda point: point.css == "ours"):
        _dot(plot, point, f"{point.x:.3g}")
    _labels(plot, points)
    return plot.markup


def sweep(points: Sequence[Point], x_label: str, y_label: str, ends: Sequence[Point]) -> Markup:
    """Dots along a threshold joined by a line; ``ends`` are methods without one, drawn as levels."""
    plot = _plot(f"{y_label} along {x_label}", [*points, *ends], x_label, y_label, 1.15 * max(p.x for p in points))
    for end in ends:
        plot.line([(plot.x_range[0], end.y.mean), (plot.x_range[1], end.y.mean)], "threshold")
        plot.text(plot.width - 14, plot.y(end.y.mean) - 6, end.name, "tick end strong")
    plot.line([(point.x, point.y.mean) for point in points], "path")
    for point in points:
        _dot(plot, point, f"{point.x:g}")
    _labels(plot, points)
    return plot.markup


def _plot(title: str, points: Sequence[Point], x_label: str, y_label: str, right: float) -> Plot:
    low, high = min(point.y.low for point in points), max(point.y.high for point in points)
    room = 0.08 * (high - low) or abs(high) or 1.0
    plot = Plot(title, (0.0, right), (low - room, high + room), x_label, y_label, width=560, height=300)
    plot.y_axis(count=6)
    plot.x_ticks()
    return plot


def _dot(plot: Plot, point: Point, x: str) -> None:
    y = point.y
    plot.line([(point.x, y.low), (point.x, y.high)], f"whisker {point.css}")
    plot.dot(point.x, y.mean, point.css, f"{point.name}: {y.mean:.4g} ({y.low:.4g}–{y.high:.4g}) at {x}")


def _labels(plot: Plot, points: Sequence[Point]) -> None:
    """To the right of their dots, from the top down; one that would cover another stands below it."""
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: -point.y.mean):
        x, y = plot.x(point.x) + 8, plot.y(point.y.mean) + 4
        for other, taken in placed:
            if abs(x - other) < _LABEL[0] and abs(y - taken) < _LABEL[1]:
                y = taken + _LABEL[1]
        if point.label:
            placed.append((x, y))
            plot.text(x, y, point.label, "tick strong")


def swept(rows: Sequence[Row]) -> Chart | None:
    """Figure 6: quality along δ, if this is a sweep of it: rows that differ in nothing else are called by it.

    Beside each dot stand the activations' average bits; the widths at the ends of the sweep are levels.
    """
    name = next((name for name in METRICS if all(name in row.metrics for row in rows)), None)
    along = [row for row in rows if row.delta is not None and row.label == f"δ = {row.delta:g}"]
    if name is None or len(along) < 2:
        return None
    points, ends = (
        [
            Point(row.title, row.delta or 0.0, row.metrics[name], "ours", f"{row.average_bits:.2f} bits")
            for row in chosen
        ]
        for chosen in (along, [row for row in rows if row.delta is None])
    )
    heading = METRICS[name].heading
    return Chart(sweep(points, "δ", heading, ends), f"{heading} along δ")


def stacked(title: str, y_label: str, parts: Sequence[str], bars: Sequence[tuple[str, Sequence[float]]]) -> Markup:
    """One bar for each label; its values from the bottom up are of ``parts``, which :func:`legend` explains."""
    totals = [sum(values) for _, values in bars]
    plot = Plot(title, (0.0, float(len(bars))), (0.0, 1.12 * max(totals)), y_label=y_label, height=300)
    plot.y_axis(count=6)
    for place, ((label, values), total) in enumerate(zip(bars, totals, strict=True)):
        base = 0.0
        for (css, words), value in zip(legend(parts), values, strict=True):
            tip = f"{label}, {words}: {value:.4g} ({value / total:.0%})"
            plot.bar(place + 0.2, place + 0.8, base, base + value, css, tip)
            base += value
        plot.text(plot.x(place + 0.5), plot.y(total) - 6, f"{total:.3g}", "tick mid strong")
    plot.x_axis([(place + 0.5, label) for place, (label, _) in enumerate(bars)])
    return plot.markup


def legend(parts: Sequence[str]) -> list[tuple[str, str]]:
    """The style of each part, and its words."""
    return [(f"part{number}", words) for number, words in enumerate(parts, start=1)]
