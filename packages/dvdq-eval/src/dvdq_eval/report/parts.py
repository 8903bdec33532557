"""What a page is made of, as data: the template draws each part by its ``kind``."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup
from PIL import Image

from dvdq_eval.report.origin import Source, origin
from dvdq_models.running.video import Frames


@dataclass(frozen=True)
class Text:
    """A paragraph; ``css`` may be ``note``."""

    kind: ClassVar[str] = "text"
    text: str
    css: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    Attributes:
        heading: its name.
        meaning: more of it, shown when pointed at.
        first: the order that a first click sorts into.
        group: a name above neighbouring columns that have the same.
        words: whether its cells are words, which stand to the left.
    """

    heading: str
    meaning: str = ""
    first: Literal["ascending", "descending"] = "descending"
    group: str = ""
    words: bool = False


@dataclass(frozen=True)
class Cell:
    """A figure: as it is shown, the ``value`` that it is sorted by (None sorts last), and smaller words beside it.

    ``mark`` says that it is ``better`` or ``worse`` than what its row is held against, by more than chance.
    """

    text: str
    value: float | str | None = None
    aside: str = ""
    css: str = ""
    mark: Literal["", "better", "worse"] = ""


@dataclass(frozen=True)
class Sheet:
    """A table that sorts by any column; the first cell of each row names it.

    Attributes:
        caption: what it shows.
        columns, rows: as many cells in each row as there are columns.
        folded: whether it is behind its caption until asked for.
        note: what has to be said with it.
    """

    kind: ClassVar[str] = "sheet"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Names above columns with how many each stands over; no names, no list."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


@dataclass(frozen=True)
class Chart:
    """One chart with words above it, to the left and to the right."""

    svg: Markup
    title: str = ""
    aside: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts beside one another, with what their colours mean: the style's class and words."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    legend: Sequence[tuple[str, str]] = ()


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
