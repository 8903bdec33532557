"""Charts as inline SVG: a plot area with axes, and marks in data coordinates. Colours come from the page's style."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from dvdq_eval.records import write_text

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40


@dataclass
class Plot:
    """A plot of ``width`` × ``height`` pixels over ``[x0, x1] × [y0, y1]``; marks are added, then ``markup`` gives SVG.

    Args:
        title: what the chart shows, read out by screen readers.
        x_label, y_label: names of the axes.
    """

    title: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_label: str = ""
    y_label: str = ""
    width: int = 960
    height: int = 260
    bottom: int = BOTTOM
    marks: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - TOP - self.bottom)

    def y_axis(self, form: str = "g", count: int = 4) -> None:
        """Horizontal grid lines at round values, labelled."""
        for value in ticks(*self.y_range, count):
            y = self.y(value)
            self.marks.append(f'<line class="grid" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.text(LEFT - 8, y + 4, format(value, form), "tick end")
        if self.y_label:
            middle = (TOP + self.height - self.bottom) / 2
            turned = f'transform="rotate(-90 13 {middle:.1f})"'
            self.marks.append(f'<text class="label mid" x="13" y="{middle:.1f}" {turned}>{escape(self.y_label)}</text>')

    def x_axis(self, labels: Iterable[tuple[float, str]]) -> None:
        """Labels below the plot at data positions."""
        for value, label in labels:
            self.text(self.x(value), self.height - self.bottom + 17, label, "tick mid")
        if self.x_label:
            self.text((LEFT + self.width - RIGHT) / 2, self.height - 5, self.x_label, "label mid")

    def x_ticks(self, form: str = "g", count: int = 6) -> None:
        """Round values below the plot."""
        self.x_axis([(value, format(value, form)) for value in ticks(*self.x_range, count)])

    def text(self, x: float, y: float, text: str, css: str) -> None:
        """Text at pixels."""
        self.marks.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')

    def line(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """A line through data points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.marks.append(f'<polyline class="{css}" points="{path}"/>')

    def dot(self, x: float, y: float, css: str, tip: str) -> None:
        """A dot with a tooltip."""
        title = f"<title>{escape(tip)}</title>"
        self.marks.append(f'<circle class="{css}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4">{title}</circle>')

    def bar(self, x0: float, x1: float, y0: float, y1: float, css: str, tip: str = "") -> None:
        """A rectangle between data coordinates."""
        left, top = self.x(x0), self.y(max(y0, y1))
        self.box(left, top, self.x(x1) - left, self.y(min(y0, y1)) - top, css, tip, radius=0)

    def box(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        css: str,
        tip: str = "",
        *,
        opacity: float = 1.0,
        radius: int = 2,
    ) -> None:
        """A rectangle at pixels with a tooltip."""
        title = f"<title>{escape(tip)}</title>" if tip else ""
        place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
        faint = "" if opacity == 1.0 else f' opacity="{opacity:.2f}"'
        self.marks.append(f'<rect class="{css}" {place}{faint} rx="{radius}">{title}</rect>')

    def area(self, values: Sequence[float], css: str) -> None:
        """Bars of one width, each from zero, drawn as one outline: value i spans ``[i, i + 1]``."""
        base = self.y(0.0)
        steps = " ".join(f"V{self.y(value):.1f}H{self.x(i + 1):.1f}" for i, value in enumerate(values))
        self.marks.append(f'<path class="{css}" d="M{self.x(0):.1f},{base:.1f}{steps}V{base:.1f}Z"/>')

    @property
    def markup(self) -> Markup:
        """The chart as an SVG element."""
        body = "".join(self.marks)
        view = f'viewBox="0 0 {self.width} {self.height}"'
        # Smaller, its words could not be read; larger, they would shout.
        size = f'style="min-width: {0.85 * self.width:.0f}px; max-width: {1.25 * self.width:.0f}px"'
        name = escape(self.title, quote=True)
        return Markup(f'<svg class="chart" role="img" aria-label="{name}" {view} {size}>{body}</svg>')


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round values from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


_EDGE, _LINE, _ACROSS = 16, 24, 2


@dataclass(frozen=True)
class Chart:
    """One chart with words above it, to the left and to the right."""

    svg: Markup
    title: str = ""
    aside: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', self.svg)[0]
        return int(width), int(height)


@dataclass(frozen=True)
class Charts:
    """Charts beside one another, with what their colours mean: the style's class and words."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    legend: Sequence[tuple[str, str]] = ()


def style() -> str:
    """The colours, light and dark, and how the parts of a chart are drawn."""
    return resources.files("dvdq_eval.charts").joinpath("chart.css").read_text(encoding="utf-8")


def write_svg(path: Path, drawn: Charts) -> None:
    """A file of its own: the charts, two abreast, below what their colours mean."""
    width, height = (max(sizes) for sizes in zip(*(chart.size for chart in drawn.charts), strict=True))
    across = min(_ACROSS, len(drawn.charts))
    top = _EDGE + (_LINE if drawn.legend else 0)
    left, parts = _EDGE, []
    for css, words in drawn.legend:
        parts.append(f'<rect class="{css}" x="{left}" y="{_EDGE}" width="12" height="12" rx="3"/>')
        parts.append(f'<text x="{left + 18}" y="{_EDGE + 11}">{escape(words)}</text>')
        left += 42 + 7 * len(words)
    for place, chart in enumerate(drawn.charts):
        row, column = divmod(place, across)
        x, y = _EDGE + column * (width + _EDGE), top + row * (height + _LINE + _EDGE)
        parts.append(f'<text class="strong" x="{x}" y="{y + 16}">{escape(chart.title)}</text>')
        parts.append(f'<text class="end" x="{x + width}" y="{y + 16}">{escape(chart.aside)}</text>')
        place_of = f'x="{x}" y="{y + _LINE}" width="{chart.size[0]}" height="{chart.size[1]}"'
        # The class of a chart, and its style, give it the width of a page.
        parts.append(re.sub(r'<svg class="chart"(.*?) style="[^"]*"', rf"<svg {place_of}\1", str(chart.svg), count=1))
    rows = -(-len(drawn.charts) // across)
    all_of_it = (2 * _EDGE + across * (width + _EDGE) - _EDGE, top + rows * (height + _LINE + _EDGE))
    view = f'viewBox="0 0 {all_of_it[0]} {all_of_it[1]}" width="{all_of_it[0]}" height="{all_of_it[1]}"'
    font = 'font-family="system-ui, sans-serif"'
    sheet = f'<style>{style()}</style><rect class="ground" width="100%" height="100%"/>'
    write_text(
        path, f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" {font} {view}>{sheet}{"".join(parts)}</svg>\n'
    )
