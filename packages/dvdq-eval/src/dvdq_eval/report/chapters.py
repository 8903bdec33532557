"""A chapter for each model: the figures that open it, and its sections, in the order in which a reader asks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dvdq_eval.latency.results import Latency
from dvdq_eval.progress import Tell
from dvdq_eval.report.clips import choose_methods, make_wall, videos
from dvdq_eval.report.material import OPERATION, Material, summarise
from dvdq_eval.report.parts import Chapter, Section
from dvdq_eval.report.sections.cost import latency, memory
from dvdq_eval.report.sections.internals import activations, bits, weights
from dvdq_eval.report.sections.quality import quality
from dvdq_eval.report.sections.tables import tables, vbench
from dvdq_eval.tables.catalogue import OURS
from dvdq_eval.tables.rows import Summary
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


def cards(material: Material, summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    """Figures with what they are: how near and how much smaller ours is at each width, how fast, what failed."""
    found = []
    ours = [s for s in summaries if s.row.label == OURS and s.row.teacache is None and "psnr_db" in s.row.metrics]
    for summary in ours:
        psnr, words = summary.row.metrics["psnr_db"], f"{summary.row.bits}, {summary.smaller:.2f}× smaller"
        found.append((f"{psnr.mean:.1f} dB", f"PSNR of {OURS} {words}"))
    latencies = material.of(Latency)
    if not latencies:
        found += _videos_made(material, summaries)
    for file in latencies:
        quantized = [method for method in file.value.methods if method.bits]
        if quantized:
            # Ours, if it was measured; of its widths the fastest.
            best = max(quantized, key=lambda method: (method.label == OURS, method.ratio))
            found.append((f"{best.ratio:.2f}×", f"as fast a pass by {best.label} {best.bits} on {file.value.device}"))
    if material.study is not None and material.study.failures:
        found.append((str(len(material.study.failures)), "failed generations"))
    return found


def _videos_made(material: Material, summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    """Where no pass was timed: full precision's seconds a video over those of our fastest."""
    exact = (
        {method.key for method in material.study.methods if method.about.exact} if material.study is not None else set()
    )
    timed = [(summary.seconds, summary.row) for summary in summaries if summary.seconds]
    full = [seconds for seconds, row in timed if row.key in exact]
    ours = [(seconds, row.bits) for seconds, row in timed if row.label == OURS and row.teacache is None]
    if not full or not ours:
        return []
    seconds, bits = min(ours)
    return [(f"{full[0] / seconds:.2f}×", f"as fast a video by {OURS} {bits}, as they were made")]
