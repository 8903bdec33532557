"""VBench's own prompts, and the study of videos made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dvdq_eval.vbench.dimensions import DIMENSIONS, PAPER, Dimension
from dvdq_eval.videos.study import Job, Study
from dvdq_reference.spec.errors import DvdqError

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
