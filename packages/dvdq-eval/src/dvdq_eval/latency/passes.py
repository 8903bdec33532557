"""One pass of a transformer: what every measurement runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dvdq_eval.device import dtype_on
from dvdq_eval.latency.building import build
from dvdq_eval.latency.subject import Subject
from dvdq_eval.latency.variants import Variant
from dvdq_models.families.family import Inputs
from dvdq_models.switching.hook import BitSwitch, hook_of
from dvdq_reference.spec.recipe import BitSchedule


@dataclass(frozen=True)
class Pass:
    """A variant's transformer on its inputs at one activation width."""

    variant: Variant
    width: int
    transformer: Any
    inputs: Inputs

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A8``."""
        return f"{self.variant.label} {self.variant.bits(self.width)}".strip()

    def prepare(self) -> None:
        """Set the width: the pass will be the first of a video all of whose steps run at it."""
        if self.variant.recipe is not None:
            hook_of(self.transformer).switch = BitSwitch(BitSchedule("constant", low=self.width, high=self.width))

    @torch.no_grad()  # not inference mode, in which Q, K and V could not share what was quantized
    def __call__(self) -> torch.Tensor:
        """The output."""
        output: torch.Tensor = self.transformer(**self.inputs, return_dict=False)[0]
        return output


def passes_of(subject: Subject, variant: Variant, device: torch.device) -> Iterator[Pass]:
    """A pass at each width of ``variant``, all of one transformer, which is built on ``device``."""
    transformer = build(subject, variant.recipe, device)
    inputs = subject.inputs(transformer, dtype_on(device), device)
    for width in variant.widths:
        yield Pass(variant, width, transformer, inputs)
