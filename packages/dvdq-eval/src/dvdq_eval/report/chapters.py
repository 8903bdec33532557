"""A chapter for each model: its sections, in the order in which a reader asks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dvdq_eval.progress import Tell
from dvdq_eval.report.cards import cards
from dvdq_eval.report.clips import choose_methods, make_wall
from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Chapter, Section
from dvdq_eval.report.reading import OPERATION
from dvdq_eval.report.sections.bits import bits
from dvdq_eval.report.sections.latency import latency
from dvdq_eval.report.sections.memory import memory
from dvdq_eval.report.sections.quality import quality
from dvdq_eval.report.sections.tables import tables
from dvdq_eval.report.sections.vbench import vbench
from dvdq_eval.report.sections.videos import videos
from dvdq_eval.report.sections.weights import activations, weights
from dvdq_eval.report.summary import Summary, summarise
from dvdq_reference.spec.errors import DvdqError


def make_chapters(materials: Sequence[Material], *, prompts: int, methods: Sequence[str], tell: Tell) -> list[Chapter]:
    """All chapters; ``methods`` are titles or labels of those whose videos are shown.

    Raises:
        DvdqError: no study has a method of such a name.
    """
    _check_methods(methods, materials)
    chapters = []
    for number, material in enumerate(materials, start=1):
        slug = re.sub(r"\W+", "-", material.model).strip("-")
        key = "" if len(materials) == 1 else f"{slug}-{number}"
        summaries = [] if material.study is None else summarise(material.study, tell)
        sections = _sections(material, summaries, prompts, methods, tell)
        chapters.append(Chapter(key, _title(material, materials), cards(material, summaries), sections))
    return [chapter for chapter in chapters if chapter.sections]


def _check_methods(methods: Sequence[str], materials: Sequence[Material]) -> None:
    known = [m for material in materials if material.study for m in material.study.methods if m.videos]
    for name in methods:
        if not any(name in (method.about.title, method.about.label) for method in known):
            expected = f"one of {', '.join(dict.fromkeys(method.about.title for method in known)) or 'none'}"
            raise DvdqError(OPERATION, where="--method", expected=expected, got=repr(name))


def _sections(
    material: Material, summaries: Sequence[Summary], prompts: int, wanted: Sequence[str], tell: Tell
) -> list[Section]:
    study = material.study
    shown = [] if study is None else choose_methods(study, wanted)
    wall = None if study is None or not shown else make_wall(study, shown, prompts, tell)
    found = [
        videos(material, wall),
        quality(material, summaries),
        vbench(material),
        latency(material),
        memory(material),
        bits(material),
        weights(material),
        activations(material),
        *tables(material),
    ]
    return _apart([section for section in found if section is not None])


def _apart(sections: Sequence[Section]) -> list[Section]:
    """Sections of one key, as a table found twice gives them, under keys and titles of their own."""
    times: Counter[str] = Counter()
    different = []
    for section in sections:
        times[section.key] += 1
        if (time := times[section.key]) > 1:
            section = replace(section, key=f"{section.key}-{time}", title=f"{section.title} ({time})")
        different.append(section)
    return different


def _title(material: Material, materials: Sequence[Material]) -> str:
    """The model's name; of several studies of one model, with the beginning of the folder's name."""
    if material.study is None or sum(other.model == material.model for other in materials) == 1:
        return material.model
    return f"{material.model}, {PurePosixPath(material.study.name).parent.name[:8]}"
