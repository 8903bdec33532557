"""Charts as they stand on a page and in a file of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from dvdq_eval.records import write_text

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
