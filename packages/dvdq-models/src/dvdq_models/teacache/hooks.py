"""TeaCache inside a transformer: a hook on the model places each pass, hooks on the blocks compute or reuse.

The hook of block 0 takes the decision. On a reused step it adds what all blocks together added at the last computed
one, and the other blocks hand that on. State belongs to the hooks of one transformer; nothing is global.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch import nn

from dvdq_models.families.family import Modulated
from dvdq_models.switching.denoising_loop import DenoisingLoop, Place, latents_and_time
from dvdq_models.switching.hook import HOOK as BIT_SWITCH
from dvdq_models.switching.hook import relative_change
from dvdq_models.teacache.coefficients import Coefficients
from dvdq_models.teacache.decision import Accumulator, CacheDecision
from dvdq_reference.spec.errors import DvdqError

HOOK = "dvdq_teacache"


@dataclass
class _Pass:
    """What one pass ("cond" or "uncond") keeps from step to step."""

    accumulator: Accumulator
    signal: torch.Tensor | None = None
    residual: torch.Tensor | None = None


class TeaCacheHook(ModelHook):  # type: ignore[misc]  # diffusers is untyped
    """On the transformer: knows the step, keeps the state of each pass, decides, and keeps the latest video's trace."""

    _is_stateful = True

    def __init__(self, threshold: float, coefficients: Coefficients, pipeline: Any | None) -> None:
        super().__init__()
        self.threshold, self.coefficients = threshold, coefficients
        self.context_receiver = StateManager(BaseState)
        self.trace: list[CacheDecision] = []
        self.signal: torch.Tensor | None = None
        self._loop = DenoisingLoop(pipeline)
        self._passes: dict[str, _Pass] = {}
        self._place: Place | None = None
        self._input: torch.Tensor | None = None

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        """Remembers the transformer's registry, where a bit schedule may hang too."""
        self._registry = HookRegistry.check_if_exists_or_initialize(module)
        return module

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Place the pass that begins."""
        latents, timestep = latents_and_time(module, args, kwargs)
        self._place = self._loop.enter(self.context_receiver._context, latents, timestep)
        if self._place.num_steps is None:
            expected = "the pipeline, since it does not tell its transformer how many steps there are"
            raise DvdqError("enable_teacache", where="pipeline", expected=expected, got=None)
        if self._place.new_video:
            self._passes.clear()
            self.trace = []
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """The pass has ended."""
        self._loop.leave()
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        """A video is done: what was kept is let go; the trace stays until the next begins."""
        self._loop.end()
        self.context_receiver.reset()
        self._passes.clear()
        self.signal = self._input = None
        return module

    @property
    def reusing(self) -> bool:
        """Whether the pass that runs skips the blocks."""
        return self.trace[-1].reused

    def decide(self, hidden_states: torch.Tensor) -> None:
        """Compute or reuse, from the signal of this pass; ``hidden_states`` is what goes into block 0."""
        assert self._place is not None
        assert self.signal is not None
        place, signal = self._place, self.signal.detach()
        current = self._passes.get(place.name)
        if current is None or current.signal is None or current.signal.shape != signal.shape:
            current = self._passes[place.name] = _Pass(Accumulator(self.threshold, self.coefficients))
        distance = None if current.signal is None else relative_change(signal, current.signal)
        last = place.step + 1 == place.num_steps
        self.trace.append(current.accumulator.decide(place.step, place.name, distance, last=last))
        current.signal = signal
        self._input = hidden_states.detach()
        switch = self._registry.get_hook(BIT_SWITCH)
        if self.reusing and switch is not None:
            switch.mark_skipped("TeaCache")

    def reuse(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``hidden_states`` after all blocks, as if they added what they added last."""
        residual = self._running.residual
        assert residual is not None
        return hidden_states + residual

    def store(self, hidden_states: torch.Tensor) -> None:
        """Keep what all blocks added, given what came out of the last."""
        assert self._input is not None
        self._running.residual = hidden_states.detach().to(self._input.device) - self._input
        self._input = None

    @property
    def _running(self) -> _Pass:
        assert self._place is not None
        return self._passes[self._place.name]


class BlockHook(ModelHook):  # type: ignore[misc]  # diffusers is untyped
    """On a block: the first decides, all are skipped on a reused step, the last tells what was added."""

    def __init__(
        self, cache: TeaCacheHook, returns: Sequence[str], modulated: Modulated | None, *, first: bool, last: bool
    ) -> None:
        super().__init__()
        self._cache, self._returns, self._modulated = cache, returns, modulated
        self._first, self._last = first, last
        self._names: list[str] = []

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        """Looks up what the arguments of the block are called."""
        self._names = list(inspect.signature(type(module).forward).parameters)[1:]
        return module

    # Not recursively: decisions stay out of a compiled graph, the block's own forward does not.
    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block, or what stands for it."""
        instead = self._before(module, args, kwargs)
        return self._after(self.fn_ref.original_forward(*args, **kwargs)) if instead is None else instead

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What stands for the block on a reused step, else None."""
        hidden_states = self._argument(self._returns[0], args, kwargs)
        if self._first:
            if self._modulated is not None:
                self._cache.signal = self._modulated(block, lambda name: self._argument(name, args, kwargs))
            self._cache.decide(hidden_states)
        if not self._cache.reusing:
            return None
        if self._first:
            hidden_states = self._cache.reuse(hidden_states)
        others = [self._argument(name, args, kwargs) for name in self._returns[1:]]
        return (hidden_states, *others) if others else hidden_states

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _after(self, output: Any) -> Any:
        """The block's output, from which the last one tells what was added."""
        if self._last:
            self._cache.store(output[0] if isinstance(output, tuple) else output)
        return output

    def _argument(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return kwargs[name] if name in kwargs else args[self._names.index(name)]


class EmbeddingHook(ModelHook):  # type: ignore[misc]  # diffusers is untyped
    """On what embeds the time step: hands the embedding on, which no block is given."""

    def __init__(self, cache: TeaCacheHook, index: int) -> None:
        super().__init__()
        self._cache, self._index = cache, index

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Leaves the output as it is."""
        self._cache.signal = output[self._index] if isinstance(output, tuple) else output
        return output
