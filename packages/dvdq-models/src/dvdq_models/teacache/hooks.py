"""TeaCache inside a transformer: a hook on the model places each pass, hooks on the blocks compute or reuse.

The hook of block 0 takes the decision. On a reused step it adds what all blocks together added at the last computed
one, to each stream that they return, and the other blocks hand that on. State belongs to the hooks of one transformer;
nothing is global.
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
Streams = tuple[torch.Tensor | None, ...]
"""What goes through the blocks, the latents first; None where a stream is absent, such as a sound not asked for."""


@dataclass
class _Pass:
    """What one pass ("cond" or "uncond") keeps from step to step."""

    accumulator: Accumulator
    signal: torch.Tensor | None = None
    residual: Streams | None = None
    shape: torch.Size | None = None


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
        self._input: Streams | None = None

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

    def decide(self, given: Streams) -> None:
        """Compute or reuse, from the signal of this pass; ``given`` is what goes into block 0."""
        assert self._place is not None
        assert self.signal is not None
        assert given[0] is not None
        place, signal, shape = self._place, self.signal.detach(), given[0].shape
        current = self._passes.get(place.name)
        if current is None or current.signal is None or current.signal.shape != signal.shape or current.shape != shape:
            current = self._passes[place.name] = _Pass(Accumulator(self.threshold, self.coefficients), shape=shape)
        distance = None if current.signal is None else relative_change(signal, current.signal)
        last = place.step + 1 == place.num_steps
        self.trace.append(current.accumulator.decide(place.step, place.name, distance, last=last))
        current.signal = signal
        self._input = tuple(None if stream is None else stream.detach() for stream in given)
        switch = self._registry.get_hook(BIT_SWITCH)
        if self.reusing and switch is not None:
            switch.mark_skipped("TeaCache")

    def reuse(self, given: Streams) -> Streams:
        """``given`` after all blocks, as if they added what they added last."""
        residual = self._running.residual
        assert residual is not None
        return tuple(
            None if stream is None or added is None else stream + added
            for stream, added in zip(given, residual, strict=True)
        )

    def store(self, left: Streams) -> None:
        """Keep what all blocks added, given what came out of the last."""
        assert self._input is not None
        self._running.residual = tuple(
            None if after is None or before is None else after.detach().to(before.device) - before
            for after, before in zip(left, self._input, strict=True)
        )
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
        given: Streams = tuple(self._argument(name, args, kwargs) for name in self._returns)
        if self._first:
            if self._modulated is not None:
                self._cache.signal = self._modulated(block, lambda name: self._argument(name, args, kwargs))
            self._cache.decide(given)
        if not self._cache.reusing:
            return None
        if self._first:
            given = self._cache.reuse(given)
        return given if len(given) > 1 else given[0]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _after(self, output: Any) -> Any:
        """The block's output, from which the last one tells what was added."""
        if self._last:
            self._cache.store(output if isinstance(output, tuple) else (output,))
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
