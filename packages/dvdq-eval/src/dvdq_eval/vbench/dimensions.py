"""Which of VBench's dimensions are scored, and what each asks of videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
