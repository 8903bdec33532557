"""What a whole is made of, a bar a method."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dvdq_eval.charts.plot import Plot


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
