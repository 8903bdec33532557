"""Putting TeaCache on a transformer and taking it off again."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

from dvdq_models.families import families
from dvdq_models.families.family import Caching, Embedding, Signal
from dvdq_models.teacache.coefficients import Coefficients, coefficients_of
from dvdq_models.teacache.decision import CacheDecision
from dvdq_models.teacache.hooks import HOOK, BlockHook, EmbeddingHook, TeaCacheHook
from dvdq_reference.spec.errors import DvdqError

_OTHER_CACHES = "enable_cache"
"""The method of diffusers' models that turns on a cache of its own."""


def enable_teacache(
    transformer: nn.Module,
    threshold: float,
    *,
    coefficients: str | Coefficients | None = None,
    pipeline: Any | None = None,
) -> None:
    """Skip the blocks of denoising steps whose output is expected to change little (TeaCache, arXiv 2411.19108).

    The relative L1 change of a signal that is known before the blocks run, rescaled by a polynomial, is summed over the
    steps since the last computed one. Below ``threshold`` the blocks are skipped, and what they added last is added
    again. The first steps and the last are always computed, each pass of classifier-free guidance is judged by itself,
    and a batch as a whole. Enabling anew replaces what was enabled.

    Args:
        transformer: of a class whose family says where TeaCache hooks in, quantized or not. A pipeline with two needs a
            call for each.
        threshold: e.g. 0.1; at 0 every step is computed and the video is the one without a cache, bit for bit.
        coefficients: a name of :func:`~dvdq_models.teacache.names`, or what
            :func:`~dvdq_models.teacache.fit_coefficients` gives. None takes those of the one known model of this
            architecture.
        pipeline: whose scheduler knows the timesteps. Needed by every pipeline that does not tell its transformer the
            step: all but ``WanPipeline``.

    Raises:
        DvdqError: another class of transformer, a threshold that is not finite and at least 0, a cache of diffusers
            enabled, coefficients that are unknown, ambiguous or of another family; during a video, if nobody tells the
            step. Of a class that TeaCache cannot be put on, its family says why.
    """
    operation = "enable_teacache"
    check_signal(transformer)
    if not (math.isfinite(threshold) and threshold >= 0.0):
        raise DvdqError(operation, where="threshold", expected="a finite number, 0 or more", got=threshold)
    if getattr(transformer, "is_cache_enabled", False):
        raise DvdqError(operation, expected="no other cache; call disable_cache() first", got="one of diffusers")
    if coefficients is None:
        coefficients = coefficients_of(transformer)
    elif isinstance(coefficients, str):
        coefficients = Coefficients.named(coefficients)
    check_signal(transformer, coefficients.signal)
    attach(transformer, TeaCacheHook(threshold, coefficients, pipeline))


def check_signal(transformer: nn.Module, signal: Signal | None = None) -> Signal:
    """``signal``, or the first that the transformer has; an unknown class or signal is a :class:`DvdqError`."""
    signals = _caching_of(transformer).signals
    if signal is None:
        return next(iter(signals))
    if signal not in signals:
        where = type(transformer).__name__
        raise DvdqError("teacache", where=where, expected=f"signal {' or '.join(signals)}", got=signal)
    return signal


def _caching_of(transformer: nn.Module) -> Caching:
    said = {name: caching for family in families() for name, caching in family.teacache.items()}
    known = {name: caching for name, caching in said.items() if not isinstance(caching, str)}
    name = type(transformer).__name__
    if name not in known:
        got = f"{name}: {said[name]}" if name in said else name
        raise DvdqError("teacache", expected=f"a transformer of class {' or '.join(known)}", got=got)
    return known[name]


def attach(transformer: Any, cache: TeaCacheHook) -> None:
    """Put ``cache`` on a transformer of a known class, and its hooks on the blocks."""
    disable_teacache(transformer)
    _register(transformer, cache)
    vars(transformer)[_OTHER_CACHES] = _refuse_other_caches
    caching = _caching_of(transformer)
    signal = caching.signals[cache.coefficients.signal]
    if isinstance(signal, Embedding):
        _register(transformer.get_submodule(signal.module), EmbeddingHook(cache, signal.index))
    modulated = None if isinstance(signal, Embedding) else signal
    blocks = [block for name in caching.blocks for block in getattr(transformer, name)]
    for block in blocks:
        _register(
            block, BlockHook(cache, caching.returns, modulated, first=block is blocks[0], last=block is blocks[-1])
        )


def disable_teacache(transformer: nn.Module) -> None:
    """Take TeaCache off; a transformer without it stays as it is."""
    HookRegistry.check_if_exists_or_initialize(transformer).remove_hook(HOOK, recurse=True)
    vars(transformer).pop(_OTHER_CACHES, None)


def _refuse_other_caches(config: Any) -> NoReturn:
    expected = "no other cache; call disable_teacache(transformer) first"
    raise DvdqError(_OTHER_CACHES, where=type(config).__name__, expected=expected, got="TeaCache")


def teacache_trace(transformer: nn.Module) -> tuple[CacheDecision, ...]:
    """The decisions of the latest video, one a pass; a :class:`DvdqError` if TeaCache is not enabled."""
    registry = getattr(transformer, "_diffusers_hook", None)
    cache = None if registry is None else registry.get_hook(HOOK)
    if not isinstance(cache, TeaCacheHook):
        raise DvdqError(
            "teacache_trace", expected="a transformer with TeaCache enabled", got=type(transformer).__name__
        )
    return tuple(cache.trace)


def _register(module: nn.Module, hook: ModelHook) -> None:
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, HOOK)
