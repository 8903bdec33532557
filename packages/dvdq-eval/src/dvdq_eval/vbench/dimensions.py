"""Which of VBench's dimensions are scored, what each asks of videos, and the study of VBench's own prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dvdq_eval.videos.study import Job, Study
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Dimension:
    """One of VBench's judges.

    Attributes:
        name: VBench's, e.g. ``imaging_quality``.
        column: the paper's heading in its Table 1; empty where the paper has none.
        prompts: how many of VBench's own prompts it has.
        custom: whether any prompt will do; ``scene`` has to know what is to be seen.
        unit: by which VBench's value of one video is divided to be on the scale of its aggregate.
        smallest_side: in pixels, of videos that it can judge.
    """

    name: str
    column: str
    prompts: int
    custom: bool = True
    unit: float = 1.0
    smallest_side: int = 1

    @property
    def heading(self) -> str:
        """For people."""
        return self.column or self.name.replace("_", " ")


_ALL = (
    Dimension("aesthetic_quality", "aesthetic", 93),
    Dimension("imaging_quality", "imaging", 93, unit=100.0),
    Dimension("overall_consistency", "overall", 93),
    Dimension("scene", "scene", 86, custom=False),
    Dimension("background_consistency", "background", 86),
    Dimension("subject_consistency", "subject", 72),
    # RAFT pads to eighths and halves these three times; where one pixel is left it divides by zero, every flow is NaN,
    # and VBench says that the video stands still.
    Dimension("dynamic_degree", "dynamic", 72, smallest_side=121),
    Dimension("motion_smoothness", "motion", 72),
    Dimension("temporal_flickering", "", 75),
)
DIMENSIONS: Mapping[str, Dimension] = MappingProxyType({dimension.name: dimension for dimension in _ALL})
PAPER = tuple(dimension.name for dimension in _ALL if dimension.column)
"""The eight of the paper's Table 1, in its order; ``temporal_flickering`` is the one that needs no weights."""


def chosen(operation: str, names: tuple[str, ...], *, standard: bool) -> tuple[Dimension, ...]:
    """The dimensions of some names, each once; of none, the paper's, without ``scene`` for prompts of one's own.

    Raises:
        DvdqError: a name of none, or ``scene`` for other prompts than VBench's.
    """
    found = []
    for name in dict.fromkeys(names or (name for name in PAPER if standard or DIMENSIONS[name].custom)):
        if name not in DIMENSIONS:
            raise DvdqError(operation, where="--dimension", expected=f"one of {', '.join(DIMENSIONS)}", got=repr(name))
        if not (standard or DIMENSIONS[name].custom):
            expected = "VBench's own prompts, which say what is to be seen: --prompts standard"
            raise DvdqError(operation, where=name, expected=expected, got="others")
        found.append(DIMENSIONS[name])
    return tuple(found)


SAMPLES = 5
"""Videos of each prompt."""


@dataclass(frozen=True)
class StandardPrompt:
    """A prompt and the dimensions that it is for, each with what VBench has to know besides, or nothing."""

    text: str
    about: Mapping[str, Any]


@dataclass(frozen=True)
class StandardStudy(Study):
    """All of VBench's prompts, of which some are made: which ones does not change the seed of any.

    Attributes:
        standard: what each of ``prompts`` is for, in their order.
        dimensions: whose videos are made.
        first: how many prompts of each dimension; None is all.
    """

    standard: tuple[StandardPrompt, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    first: int | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The videos that some dimension needs."""
        wanted = {text for dimension in self.dimensions for text in self._texts(dimension)}
        return tuple(job for job in super().jobs if job.prompt in wanted)

    def jobs_of(self, dimension: Dimension) -> tuple[Job, ...]:
        """The videos that ``dimension`` needs."""
        wanted = set(self._texts(dimension))
        return tuple(job for job in super().jobs if job.prompt in wanted)

    def about(self, job: Job, dimension: Dimension) -> Any:
        """What VBench has to know of a video besides its prompt; None where nothing."""
        (found,) = (prompt for prompt in self.standard if prompt.text == job.prompt)
        return found.about[dimension.name]

    def _texts(self, dimension: Dimension) -> Sequence[str]:
        return [prompt.text for prompt in self.standard if dimension.name in prompt.about][: self.first]


def jobs_of(study: Study, dimension: Dimension) -> tuple[Job, ...]:
    """The videos of a study that ``dimension`` is asked about: of prompts of one's own, all."""
    return study.jobs_of(dimension) if isinstance(study, StandardStudy) else study.jobs


def entry(study: Study, job: Job, dimension: Dimension, path: str) -> dict[str, Any]:
    """One line of the list that VBench reads: the video at ``path`` and what it should show."""
    values: dict[str, Any] = {"prompt_en": job.prompt, "dimension": [dimension.name], "video_list": [path]}
    if isinstance(study, StandardStudy) and (about := study.about(job, dimension)) is not None:
        values["auxiliary_info"] = {dimension.name: about}
    return values


def standard_prompts(listed: Iterable[Mapping[str, Any]]) -> tuple[StandardPrompt, ...]:
    """The prompts of our dimensions from VBench's list: the paper's first, then those of flickering alone.

    A text that is listed twice is one prompt; two that differ in case are two.

    Raises:
        DvdqError: another list than VBench 0.1.5's.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in listed:
        about = {name: line.get("auxiliary_info", {}).get(name) for name in line["dimension"] if name in DIMENSIONS}
        if about:
            found.setdefault(line["prompt_en"], {}).update(about)
    for dimension in DIMENSIONS.values():
        count = sum(dimension.name in about for about in found.values())
        if count != dimension.prompts:
            expected = f"VBench's {dimension.prompts} prompts of {dimension.name}"
            raise DvdqError("VBench's prompts", expected=expected, got=count)
    ordered = sorted(found, key=lambda text: not any(name in PAPER for name in found[text]))
    return tuple(StandardPrompt(text, found[text]) for text in ordered)
