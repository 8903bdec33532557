"""What a page is made of, as data: the template draws each part by its ``kind``; and where its figures come from."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from dvdq_eval.charts.plot import Charts
from dvdq_eval.sheets import Sheet
from dvdq_models.running.video import Frames


@dataclass(frozen=True)
class Text:
    """A paragraph; ``css`` may be ``note``."""

    kind: ClassVar[str] = "text"
    text: str
    css: str = ""


@dataclass(frozen=True)
class Facts:
    """Terms and what there is to say of each."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ReportVideo:
    """An mp4 file's bytes, and the frame ``[height, width, 3]`` that stands for it until it plays."""

    mp4: bytes
    poster: Frames

    @property
    def source(self) -> str:
        """The file as a data URI."""
        return f"data:video/mp4;base64,{base64.b64encode(self.mp4).decode()}"

    @property
    def poster_source(self) -> str:
        """The frame as a data URI."""
        image = io.BytesIO()
        Image.fromarray(self.poster).save(image, "WEBP", quality=85)
        return f"data:image/webp;base64,{base64.b64encode(image.getvalue()).decode()}"


@dataclass(frozen=True)
class Clip:
    """A video below others of its method, with lines of words in a style each; no video if its generation failed."""

    label: str
    video: ReportVideo | None
    lines: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Wall:
    """Videos that play in step, ``clips[i]`` of ``prompts[i]``, and a divider between any two methods of a prompt."""

    kind: ClassVar[str] = "wall"
    prompts: Sequence[str]
    clips: Sequence[Sequence[Clip]]
    fps: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the videos in pixels."""
        height, width = next(clip.video.poster.shape for row in self.clips for clip in row if clip.video)[:2]
        return width, height

    @property
    def bytes(self) -> int:
        """Of all mp4 files."""
        return sum(len(clip.video.mp4) for row in self.clips for clip in row if clip.video is not None)


Part = Text | Sheet | Charts | Facts | Wall


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; ``key`` is its address in its chapter."""

    key: str
    title: str
    parts: Sequence[Part]
    sources: Sequence[Source] = ()

    @property
    def origin(self) -> list[tuple[str, str]]:
        """Files, commits, machines and versions behind the figures."""
        return origin(self.sources)


@dataclass(frozen=True)
class Chapter:
    """Sections about one model under one title, which ``cards`` open: figures, each with what it is.

    The ``key`` of a page's only chapter may be empty.
    """

    key: str
    title: str
    cards: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    def address(self, section: Section) -> str:
        """The id of a section's element."""
        return f"{self.key}-{section.key}" if self.key else section.key


@dataclass(frozen=True)
class Page:
    """All of it: ``eyebrow`` stands above the heading, ``lead`` below it."""

    title: str
    eyebrow: str
    heading: str
    lead: str
    chapters: Sequence[Chapter]


_LISTED = 6


@dataclass(frozen=True)
class Source:
    """A file that figures come from, and what :func:`dvdq_eval.machine.provenance` said when it was written."""

    name: str
    provenance: Mapping[str, Any]


def origin(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Terms and values: files, commits, dates, machines, versions; sources that differ are listed."""
    said = [source.provenance for source in sources if source.provenance]
    dates = sorted(p["date"] for p in said)
    terms = (
        ("From", [source.name for source in sources]),
        ("Commit", [p["commit"] or "not a checkout" for p in said]),
        ("Made", dates if len(dates) < 2 or dates[0] == dates[-1] else [f"{dates[0]} to {dates[-1]}"]),
        ("Machine", [f"{p['processor']}, {p['cores']} cores, {p['threads']} threads, {p['device']}" for p in said]),
        ("System", [f"{p['platform']}, Python {p['python']}, DVD-Quant {p['dvdq']}" for p in said]),
        ("Libraries", [", ".join(f"{name} {version}" for name, version in p["libraries"].items()) for p in said]),
    )
    return [(term, _listed(values)) for term, values in terms if values]


def _listed(values: Sequence[str]) -> str:
    different = list(dict.fromkeys(values))
    more = len(different) - _LISTED
    return "; ".join(different[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
