"""Everything that is known of some models, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

import dvdq_eval
from dvdq_eval.charts.plot import style
from dvdq_eval.progress import Tell
from dvdq_eval.records import write_text
from dvdq_eval.report.chapters import make_chapters
from dvdq_eval.report.material import OPERATION, Material, gather
from dvdq_eval.report.parts import Chapter, Page, Wall
from dvdq_eval.sheets import Column
from dvdq_reference.spec.errors import DvdqError

TITLE = "Evaluation"


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    title: str = TITLE,
    prompts: int = 4,
    methods: Sequence[str] = (),
    tell: Tell,
) -> Path:
    """Write one self-contained HTML page about all that lies below ``folders``, complete or not at all.

    Args:
        folders: stores of videos, and what ``dvdq-eval table``, ``latency``, ``memory`` and ``layers`` wrote.
        out: the file; an earlier one is replaced.
        title: of the page.
        prompts: whose videos are shown; the sheets are of all.
        methods: titles or labels of those whose videos are shown; none leaves the choice to the page.
        tell: told of progress.

    Raises:
        DvdqError: nothing is found, a file cannot be read, or no study has a method of such a name.
    """
    materials = gather(folders, tell)
    chapters = make_chapters(materials, prompts=prompts, methods=methods, tell=tell)
    if not chapters:
        where = ", ".join(str(folder) for folder in folders)
        expected = "a store's studies, or what dvdq-eval table, latency or memory wrote"
        raise DvdqError(OPERATION, where=where, expected=expected, got="none of them")
    text = render(
        Page(title, f"DVD-Quant {dvdq_eval.__version__} · report", title, _lead(materials, chapters), chapters)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def _lead(materials: Sequence[Material], chapters: Sequence[Chapter]) -> str:
    studies = [material.study for material in materials if material.study is not None]
    made = sum(len(method.videos) for study in studies for method in study.methods)
    failed = sum(len(study.failures) for study in studies)
    walls = [part for chapter in chapters for section in chapter.sections for part in section.parts]
    shown = [part for part in walls if isinstance(part, Wall)]
    clips = sum(clip.video is not None for wall in shown for row in wall.clips for clip in row)
    megabytes = sum(wall.bytes for wall in shown) / 1e6
    models = " and ".join(dict.fromkeys(material.model for material in materials))
    methods = sum(len(study.methods) for study in studies)
    return (
        f"{models}: {made} videos by {methods} methods; failed generations: {failed}. "
        f"{clips} of the videos are in this page and weigh {megabytes:.1f} MB; it needs no network."
    )


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
