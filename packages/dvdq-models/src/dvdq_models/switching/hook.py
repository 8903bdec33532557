"""The bit schedule at work: a hook on the transformer that sets every layer's width before each denoising step.

One decision a step: with classifier-free guidance the pass that comes first ("cond") decides and the other runs at the
same width. What is measured is the first pass, or what guidance makes of both. State belongs to the hooks of one
pipeline; nothing is global.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, CacheContext, StateManager
from torch import nn

from dvdq_models.families.pipelines import transformers_of
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.quantization_config import DVDQuantConfig, mark_quantized, with_delta, with_ends
from dvdq_models.switching.denoising_loop import DenoisingLoop, latents_and_time
from dvdq_models.switching.schedule import Decider, StepDecision, decider
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BitSchedule, Recipe

HOOK = "dvdq_bit_switching"

_OUTSIDE = "a width is decided from measured outputs, so between graphs and not in one"


class BitSwitch:
    """A schedule on one video after another: decides before a step, measures after it, and keeps the latest trace.

    Args:
        schedule: what decides.
        pipeline: whose scheduler tells the step and their number, where its contexts do not.
    """

    def __init__(self, schedule: BitSchedule, pipeline: Any = None) -> None:
        self.schedule = schedule
        self.trace: list[StepDecision] = []
        self._loop = DenoisingLoop(pipeline)
        self._pipeline = None if pipeline is None else weakref.ref(pipeline)
        self._deciding = False
        self._outputs: list[torch.Tensor] = []
        self._guidance = 1.0
        self._decider: Decider | None = None
        self._previous: torch.Tensor | None = None

    def before(self, context: CacheContext | None, latents: torch.Tensor, timestep: torch.Tensor) -> StepDecision:
        """The decision for the step of the pass that begins with these inputs."""
        place = self._loop.enter(context, latents, timestep)
        self._deciding = place.first_pass or place.new_video
        if self._deciding and not place.new_video:
            self._measure()
        if place.new_video:
            self.trace, self._previous = [], None
            self._outputs.clear()
            self._decider = decider(self.schedule, place.num_steps)
        if self._deciding:
            assert self._decider is not None
            self.trace.append(self._decider.decide(place.step))
        return self.trace[-1]

    def after(self, output: torch.Tensor, expert: nn.Module) -> None:
        """Keep the output of a pass that ends, and measure as soon as the step has all that counts."""
        self._loop.leave()
        if self.trace[-1].skipped:
            return
        if self.schedule.measured == "conditional":
            if self._deciding:
                self._outputs = [output.detach()]
                self._measure()
        else:  # whether a second pass follows is known when the next step begins
            self._outputs.append(output.detach())
            if not self._deciding:
                self._guidance = self._guidance_scale(expert)

    def _measure(self) -> None:
        """Measure how far the output moved since the last step that was computed."""
        if not self._outputs:
            return
        conditional, *others = self._outputs
        current = conditional if not others else torch.lerp(others[0].float(), conditional.float(), self._guidance)
        self._outputs = []
        if self._previous is not None:
            assert self._decider is not None
            distance = relative_change(current, self._previous.to(current.device))
            self._decider.observe(distance)
            self.trace[-1] = dataclasses.replace(self.trace[-1], distance=distance)
        self._previous = current

    def _guidance_scale(self, expert: nn.Module) -> float:
        """w of ``v_u + w (v_c - v_u)``, as the pipeline of two passes tells."""
        pipeline: Any = None if self._pipeline is None else self._pipeline()
        if not hasattr(pipeline, "do_classifier_free_guidance"):
            expected = "a pipeline that tells its guidance scale, followed by dvdq_models.switching.hook.follow"
            raise DvdqError("bit schedule", where="guided", expected=expected, got=type(pipeline).__name__)
        scale: float = pipeline.guidance_scale
        second: float | None = getattr(pipeline, "_guidance_scale_2", None)
        return second if second is not None and expert is getattr(pipeline, "transformer_2", None) else scale

    def skip(self, reason: str) -> None:
        """The step under way is not computed."""
        if not self._loop.inside:
            raise DvdqError("mark_skipped", expected="a call inside a forward pass of the transformer", got="none")
        if self._deciding:
            self.trace[-1] = dataclasses.replace(self.trace[-1], skipped=True, reason=f"skipped: {reason}")

    def end(self) -> None:
        """The video is done; its trace stays until the next one begins."""
        self._measure()
        self._loop.end()
        self._previous = None


class _NoState(BaseState):  # type: ignore[misc]  # diffusers is untyped
    """The hook keeps its own state; diffusers only needs somewhere to hand the context of a pass to."""

    def reset(self) -> None:
        """Nothing to reset."""


class BitSwitchHook(ModelHook):  # type: ignore[misc]  # diffusers is untyped
    """Sets the width of one transformer's layers; ``switch`` may be shared with the other expert of a pipeline."""

    _is_stateful = True

    def __init__(self, recipe: Recipe, state: ActivationState) -> None:
        super().__init__()
        self.recipe, self.state = recipe, state
        self.switch = BitSwitch(recipe.schedule)
        self.context_receiver = StateManager(_NoState)

    @property
    def trace(self) -> list[StepDecision]:
        """The decisions of the latest video."""
        return self.switch.trace

    @torch.compiler.disable(reason=_OUTSIDE)  # type: ignore[untyped-decorator]
    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Set the width of a pass that begins, and which codes it takes."""
        latents, timestep = latents_and_time(module, args, kwargs)
        decision = self.switch.before(self.context_receiver._context, latents, timestep)
        self.state.bits, self.state.finishing = decision.bits, decision.finishing
        return args, kwargs

    @torch.compiler.disable(reason=_OUTSIDE)  # type: ignore[untyped-decorator]
    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Measure the pass that ends."""
        self.switch.after(output[0], module)
        return output

    def mark_skipped(self, reason: str) -> None:
        """A cache tells, inside a forward pass of the transformer, that it skips the blocks of this step.

        The step then adds no distance and resets nothing, its decision says ``skipped`` with ``reason``, and the next
        distance is measured from the last output that was computed. In a pass that decides nothing ("uncond") the call
        changes nothing.
        """
        self.switch.skip(reason)

    def reset_state(self, module: nn.Module) -> nn.Module:
        """A video is done: the next step starts another."""
        self.switch.end()
        self.context_receiver.reset()
        return module


def relative_change(current: torch.Tensor, previous: torch.Tensor) -> float:
    """``‖F_i - F_{i-1}‖₁ / ‖F_{i-1}‖₁`` in float32 (Eq. 11); from zero, 0 for no change and infinity for any."""
    current, previous = current.float(), previous.float()
    change, size = (current - previous).abs().sum().item(), previous.abs().sum().item()
    if size == 0.0:
        return 0.0 if change == 0.0 else float("inf")
    return float(change / size)


def attach(transformer: nn.Module, recipe: Recipe, state: ActivationState) -> BitSwitchHook:
    """Put the hook on a transformer whose quantized layers read ``state``."""
    hook = BitSwitchHook(recipe, state)
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    registry.remove_hook(HOOK, recurse=False)
    registry.register_hook(hook, HOOK)
    return hook


def hook_of(transformer: nn.Module) -> BitSwitchHook:
    """The hook of a quantized transformer; a :class:`DvdqError` if it has none."""
    hook = _find_hook(transformer)
    if hook is None:
        raise DvdqError("trace", expected="a quantized transformer", got=type(transformer).__name__)
    return hook


def hooks_of(pipeline: Any) -> dict[str, BitSwitchHook]:
    """The hooks of a pipeline's quantized transformers by their names; a :class:`DvdqError` if there is none."""
    found = {name: _find_hook(transformer) for name, transformer in transformers_of(pipeline).items()}
    hooks = {name: hook for name, hook in found.items() if hook is not None}
    if not hooks:
        raise DvdqError("schedule", expected="a pipeline with a quantized transformer", got=type(pipeline).__name__)
    return hooks


def follow(pipeline: Any) -> None:
    """Run one schedule over each whole video of ``pipeline``, at the pace of its scheduler.

    Two experts then share one trace. The scheduler tells where a video begins and how many steps it has, which STP,
    ITP, ABS, SBA and last steps that run high need, and only ``WanPipeline`` tells otherwise.
    :func:`dvdq_models.load_pipeline` does this.

    Raises:
        DvdqError: no quantized transformer, or experts whose schedules differ.
    """
    hooks = hooks_of(pipeline)
    schedules = {name: hook.recipe.schedule for name, hook in hooks.items()}
    (_, schedule), *others = schedules.items()
    for name, other in others:
        if other != schedule:
            raise DvdqError("schedule", where=name, expected=f"the other expert's, {schedule}", got=other)
    switch = BitSwitch(schedule, pipeline)
    for hook in hooks.values():
        hook.switch = switch


def set_delta(pipeline: Any, delta: float) -> None:
    """Give the δ-guided schedule of a pipeline another δ, from the next video on; it follows the pipeline then."""
    for name, hook in hooks_of(pipeline).items():
        if hook.recipe.schedule.kind != "delta":
            raise DvdqError("set_delta", where=name, expected="a delta schedule", got=hook.recipe.schedule.kind)
    _change(pipeline, lambda recipe: with_delta(recipe, delta))


def set_ends(pipeline: Any, *, first_high: int | None = None, last_high: int | None = None) -> None:
    """Let other numbers of first and last steps run high, from the next video on, which the schedule then follows.

    Args:
        pipeline: with a quantized transformer.
        first_high: None leaves it as it is, here and below.
        last_high: of all steps that run, whatever the pipeline calls them.

    Raises:
        DvdqError: what :func:`~dvdq_models.quantization_config.with_ends` refuses; the pipeline is then as it was.
    """
    _change(pipeline, lambda recipe: with_ends(recipe, first_high=first_high, last_high=last_high))


def _change(pipeline: Any, change: Callable[[Recipe], Recipe]) -> None:
    changed = {name: (hook, change(hook.recipe)) for name, hook in hooks_of(pipeline).items()}
    for name, (hook, recipe) in changed.items():
        hook.recipe = recipe
        mark_quantized(getattr(pipeline, name), DVDQuantConfig(recipe))
    follow(pipeline)


def trace(transformer: nn.Module) -> tuple[StepDecision, ...]:
    """The decisions of the latest video, one a denoising step; either of two experts that share a schedule has all."""
    return tuple(hook_of(transformer).trace)


def _find_hook(transformer: Any) -> BitSwitchHook | None:
    registry = getattr(transformer, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook(HOOK)
    return hook if isinstance(hook, BitSwitchHook) else None
