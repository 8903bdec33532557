"""Which denoising step a forward pass belongs to, whichever pipeline runs it.

``WanPipeline`` tells the index of a step and how many there are; most pipelines tell only which pass it is ("cond" or
"uncond"), HunyuanVideo's image-to-video not even that. Three sources are asked, the surest first: the context that a
pipeline enters, the scheduler of a pipeline that is followed, and the timestep itself, which falls within a video.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers.hooks.hooks import CacheContext
from torch import nn

FIRST_PASS, SECOND_PASS = "cond", "uncond"
"""What pipelines call the passes of a step; with classifier-free guidance there are two, in this order."""
_LATER = re.compile(r"uncond.*|pred_uncond.*|pred_cond_.+")
"""Names of passes that are not the first of their step: the second, those of diffusers' guiders and of LTX-2."""


def latents_and_time(
    transformer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a pass of ``transformer`` is given to denoise, and when; not every class has them first."""
    model_class: Any = type(transformer)
    given = dict(zip(_parameters(model_class), args, strict=False)) | dict(kwargs)
    return given["hidden_states"], given["timestep"]


@cache
def _parameters(transformer_class: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(transformer_class.forward).parameters)[1:]


@dataclass(frozen=True)
class Place:
    """One forward pass, e.g. ``Place(step=3, name="cond", num_steps=50, new_video=False)``.

    Attributes:
        step: counted from 0 over the whole video, also where two experts share it.
        name: of the pass, as the pipeline calls it or, if it does not, would.
        num_steps: of the video; None where nobody tells.
        new_video: whether the pass begins a video.
    """

    step: int
    name: str
    num_steps: int | None
    new_video: bool

    @property
    def first_pass(self) -> bool:
        """Whether the pass begins its step."""
        return _LATER.fullmatch(self.name) is None


class DenoisingLoop:
    """Follows one video after another through the passes of its transformers.

    Args:
        pipeline: whose scheduler is asked; it is not kept alive.
    """

    def __init__(self, pipeline: Any = None) -> None:
        self.inside = False
        self._pipeline = None if pipeline is None else weakref.ref(pipeline)
        self._place: Place | None = None
        self._first = self._last = 0.0
        self._by_index = self._moving = False
        self._begin = 0
        self._latents: weakref.ref[torch.Tensor] | None = None

    def enter(self, context: CacheContext | None, latents: torch.Tensor, timestep: torch.Tensor) -> Place:
        """The place of the pass that begins with these inputs.

        A video begins after :meth:`end`, after a pass that never ended, and where time went back: the position in the
        video is not past the first one, or before the last. (Schedulers of second order run a timestep twice, but not
        the first.) The position is the index that a context tells, else how far the mean of all timesteps has fallen:
        where frames have timesteps of their own, some of them stay while others fall.
        """
        if self.inside:
            self.end()
        self.inside = True
        time = self._time(timestep)
        name = self._name(context, latents, time)
        if self._place is not None and _LATER.fullmatch(name):
            return self._later_pass(self._place, name)
        index, num_steps = getattr(context, "step_index", None), getattr(context, "num_inference_steps", None)
        by_index = index is not None
        position = time if index is None else float(index)
        went_back = by_index != self._by_index or position < self._last or position <= self._first
        before = None if went_back else self._place
        if not by_index:
            index, num_steps = self._told(timestep, before)
            if before is not None and index == 0 < before.step:  # a run that was given up, and another further in
                before = None
            if context is None and before is not None and index == before.step:  # of latents that were cast anew
                return self._later_pass(before, SECOND_PASS)
        if before is None:
            self._first, self._by_index = position, by_index
        if index is None:
            index = 0 if before is None else before.step + 1
        if num_steps is None and before is not None:
            num_steps = before.num_steps
        self._last, self._latents = position, weakref.ref(latents)
        self._place = Place(index, name, num_steps, new_video=before is None)
        return self._place

    def leave(self) -> None:
        """The pass has ended."""
        self.inside = False

    def end(self) -> None:
        """The video is done, or was given up."""
        self._place, self.inside = None, False

    def _later_pass(self, before: Place, name: str) -> Place:
        self._place = Place(before.step, name, before.num_steps, new_video=False)
        return self._place

    def _name(self, context: CacheContext | None, latents: torch.Tensor, time: float) -> str:
        """As the context says; else by the latents, which every pass of a step gets as one object at one time."""
        if context is not None:
            return str(context.name)
        same = self._latents is not None and self._latents() is latents and time == self._last
        return SECOND_PASS if same else FIRST_PASS

    def _time(self, timestep: torch.Tensor) -> float:
        """How far the mean of all timesteps has come: of all frames, where a pass gets but those of a window.

        It falls within a video, except where a scheduler has it rise, as Mochi's does.
        """
        pipeline = None if self._pipeline is None else self._pipeline()
        of_frames = getattr(pipeline, "current_timestep", None)
        if isinstance(of_frames, torch.Tensor) and of_frames.numel() > 1:
            timestep = of_frames
        times = getattr(getattr(pipeline, "scheduler", None), "timesteps", None)
        rises = isinstance(times, torch.Tensor) and len(times) > 1 and bool(times[0] < times[-1])
        mean = timestep.double().mean().item()
        return mean if rises else -mean

    def _told(self, timestep: torch.Tensor, before: Place | None) -> tuple[int | None, int | None]:
        """The index of the step and how many there are, by the pipeline and its scheduler."""
        pipeline: Any = None if self._pipeline is None else self._pipeline()
        scheduler: Any = getattr(pipeline, "scheduler", None)
        current = getattr(pipeline, "current_timestep", None)
        highest = timestep.max().item()
        running = isinstance(current, torch.Tensor) and current.to(timestep.dtype).max().item() == highest
        steps = getattr(pipeline, "num_timesteps", None) if running else None
        if not hasattr(scheduler, "step_index"):
            return None, steps if before is None else None
        timesteps, index = scheduler.timesteps, scheduler.step_index
        if index is None:
            # A video to start from begins in the middle of the timesteps, and not every pipeline says where.
            if (index := scheduler.begin_index) is None:
                matching = [i for i, time in enumerate(timesteps) if time.to(timestep.dtype).item() == highest]
                index = matching[0] if matching else 0
            if before is not None and not self._moving:
                index = None  # a scheduler that does not move does not run this loop
            else:
                self._begin = index
        self._moving = scheduler.step_index is not None
        # The scheduler tells nothing about a loop that it does not run; the pipeline may know how long that is.
        if index is None or index >= len(timesteps) or timesteps[index].to(timestep.dtype).item() != highest:
            return None, steps if before is None else None
        return index - self._begin, len(timesteps) - self._begin if steps is None else steps
