"""The bit schedule at work: a hook on the transformer that sets every layer's width before each denoising step.

One decision a step: with classifier-free guidance the pass that comes first ("cond") decides and is measured, and the
other runs at the same width. State belongs to the hook of one transformer; nothing is global.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, CacheContext, StateManager
from torch import nn

from dvdq_models.activation_state import ActivationState
from dvdq_models.bit_schedule import DeltaGuided, Planned, StepDecision, decider
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

HOOK = "dvdq_bit_switching"
_SECOND_PASSES = frozenset({"uncond"})


class _NoState(BaseState):  # type: ignore[misc]  # diffusers is untyped
    """The hook keeps its own state; diffusers only needs somewhere to hand the context of a pass to."""

    def reset(self) -> None:
        """Nothing to reset."""


class BitSwitchHook(ModelHook):  # type: ignore[misc]  # diffusers is untyped
    """Decides before a step, measures after it, and keeps the trace of the latest video."""

    _is_stateful = True

    def __init__(self, recipe: Recipe, state: ActivationState) -> None:
        super().__init__()
        self.recipe, self.state = recipe, state
        self.context_receiver = StateManager(_NoState)
        self.trace: list[StepDecision] = []
        self._finished = True
        self._decider: DeltaGuided | Planned | None = None
        self._previous: torch.Tensor | None = None
        self._inside = False

    @property
    def _context(self) -> CacheContext | None:
        return self.context_receiver._context

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Set the width of a step that begins."""
        context = self._context
        self._inside = True
        if context is not None and context.name in _SECOND_PASSES:
            return args, kwargs
        if self._finished or (context is not None and getattr(context, "step_index", None) == 0):
            num_steps = None if context is None else getattr(context, "num_inference_steps", None)
            self._decider = decider(self.recipe.schedule, num_steps)
            self._previous, self.trace, self._finished = None, [], False
        assert self._decider is not None
        decision = self._decider.decide(len(self.trace))
        self.trace.append(decision)
        self.state.bits = decision.bits
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Measure how far the output moved since the last step that was computed."""
        context, self._inside = self._context, False
        if (context is not None and context.name in _SECOND_PASSES) or not self.trace or self.trace[-1].skipped:
            return output
        current = output[0].detach()
        if self._previous is not None and self._previous.shape == current.shape:
            assert self._decider is not None
            distance = relative_change(current, self._previous)
            self._decider.observe(distance)
            self.trace[-1] = dataclasses.replace(self.trace[-1], distance=distance)
        self._previous = current
        return output

    def mark_skipped(self, reason: str) -> None:
        """A cache tells, inside a forward pass of the transformer, that it skips the blocks of this step.

        The step then adds no distance and resets nothing, its decision says ``skipped`` with ``reason``, and the next
        distance is measured from the last output that was computed. In a pass that decides nothing ("uncond") the call
        changes nothing.
        """
        if not self._inside:
            raise DvdqError("mark_skipped", expected="a call inside a forward pass of the transformer", got="none")
        context = self._context
        if context is None or context.name not in _SECOND_PASSES:
            self.trace[-1] = dataclasses.replace(self.trace[-1], skipped=True, reason=f"skipped: {reason}")

    def reset_state(self, module: nn.Module) -> nn.Module:
        """A video is done: the next step starts another. The trace stays until then."""
        self._finished, self._previous = True, None
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
    registry = getattr(transformer, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook(HOOK)
    if not isinstance(hook, BitSwitchHook):
        raise DvdqError("trace", expected="a quantized transformer", got=type(transformer).__name__)
    return hook


def trace(transformer: nn.Module) -> tuple[StepDecision, ...]:
    """The decisions of the latest video, one a denoising step."""
    return tuple(hook_of(transformer).trace)
