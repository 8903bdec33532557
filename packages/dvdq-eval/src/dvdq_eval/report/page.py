"""A page as HTML: one file with its style and scripts, that nothing is fetched for."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from dvdq_eval.report.parts import Page

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
    scripts = [Markup(_read(name)) for name in _SCRIPTS]
    return environment.get_template("page.html").render(page=page, style=Markup(_read("style.css")), scripts=scripts)


def _read(name: str) -> str:
    return resources.files("dvdq_eval.report").joinpath("web", name).read_text(encoding="utf-8")
