"""A page as HTML: one file with its style and scripts, that nothing is fetched for."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from dvdq_eval.charts.chart import style
from dvdq_eval.report.parts import Page
from dvdq_eval.sheets.sheet import Column

_SCRIPTS = ("playback.js", "divider.js", "sorting.js")


def render(page: Page) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["heading"] = _heading
    scripts = [Markup(_read(name)) for name in _SCRIPTS]
    return environment.get_template("page.html").render(
        page=page, style=Markup(style() + _read("style.css")), scripts=scripts
    )


def _heading(column: Column) -> Markup:
    """With a capital, its unit beside it, and an arrow to what is better."""
    text = column.heading or column.meaning
    arrow = {True: "\u00a0↑", False: "\u00a0↓", None: ""}[column.more_is_better]
    return Markup.escape(text[:1].upper() + text[1:].replace(" (", "\u00a0(") + arrow)


def _read(name: str) -> str:
    return resources.files("dvdq_eval.report").joinpath("web", name).read_text(encoding="utf-8")
