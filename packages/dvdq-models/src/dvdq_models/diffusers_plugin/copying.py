"""``copy.deepcopy`` of a quantized transformer.

A hook of diffusers keeps the forward of the very module that it was put on, so a plain copy would run the layers of the
original, at the original's widths, in silence. A quantized transformer therefore copies itself: without its hook, which
is then put on the copy anew.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import nn

from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.switching.hook import HOOK, attach, hook_of
from dvdq_reference.spec.errors import DvdqError

_METHOD = "__deepcopy__"


def accept_copies(transformer: nn.Module) -> None:
    """Let ``copy.deepcopy`` of this one transformer give a model of its own, with a schedule and trace of its own."""
    vars(transformer)[_METHOD] = partial(_deepcopy, transformer)


def _deepcopy(transformer: Any, memo: dict[int, Any]) -> Any:
    _refuse_other_hooks(transformer)
    hook, registry, method = hook_of(transformer), transformer._diffusers_hook, vars(transformer).pop(_METHOD)
    registry.remove_hook(HOOK, recurse=False)
    try:
        duplicate = copy.deepcopy(transformer, memo)
    finally:
        registry.register_hook(hook, HOOK)
        vars(transformer)[_METHOD] = method
    layers = [layer for layer in duplicate.modules() if isinstance(layer, QuantizedLinear)]
    for layer in layers:
        if layer.prefetcher is not None:
            layer.offload_finish(layer.prefetcher)
    attach(duplicate, hook.recipe, layers[0].state)
    accept_copies(duplicate)
    return duplicate


def _refuse_other_hooks(transformer: nn.Module) -> None:
    for name, module in transformer.named_modules():
        registry = getattr(module, "_diffusers_hook", None)
        others = [] if registry is None else [hook for hook in registry.hooks if hook != HOOK]
        if others:
            where = name or type(transformer).__name__
            expected = (
                "a model without hooks of its own, which a copy would share; take caches and offloading off first"
            )
            raise DvdqError("deepcopy", where=where, expected=expected, got=others[0])
