"""LoRA on a quantized transformer: a side branch on each layer's own input, ``Y = quantized_linear(x) + s B(A(x))``.

``x`` is what the layer was given, before any rotation, so an adapter adds just what it adds to the full-precision
model. Everything goes through diffusers' usual calls. They end at methods of the transformer, and a quantized one has
three of its own (:func:`accept_lora`): one checks an adapter as a whole before PEFT sees it, one refuses to merge
floats into codes, one to save a model together with an adapter.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from torch import nn

from dvdq_models.linear import QuantizedLinear
from dvdq_models.lora.adapter import check_adapter, check_settings
from dvdq_reference.spec.errors import DvdqError

_WHERE_TO_LOOK = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "weight_name",
)


def accept_lora(transformer: nn.Module) -> None:
    """Make the methods of this one transformer that concern LoRA those of a quantized model."""
    methods = {
        "load_lora_adapter": partial(_load_lora_adapter, transformer),
        "fuse_lora": partial(_fuse_lora, transformer),
        "save_pretrained": partial(_save_pretrained, transformer),
    }
    for name, method in methods.items():
        # A pipeline asks for it before it passes arguments on.
        vars(method)["__signature__"] = inspect.signature(getattr(transformer, name))
        vars(transformer)[name] = method


def refuse_adapters(operation: str, transformer: nn.Module) -> None:
    """A :class:`DvdqError` if any layer carries LoRA: ``operation`` is about the model alone."""
    adapted = [name for name, module in transformer.named_modules() if hasattr(module, "base_layer")]
    if adapted:
        expected = "a model without LoRA (pipeline.unload_lora_weights() takes it out)"
        raise DvdqError(operation, where=adapted[0], expected=expected, got=f"{len(adapted)} layers that carry it")


def _load_lora_adapter(
    transformer: Any,
    source: Any,
    prefix: str | None = "transformer",
    hotswap: bool = False,
    metadata: dict[str, Any] | None = None,
    adapter_name: str | None = None,
    **kwargs: Any,
) -> None:
    """diffusers' ``load_lora_adapter`` with the same arguments, for a transformer whose linears are quantized.

    Raises:
        DvdqError: whatever :func:`check_adapter` and :func:`check_settings` refuse; the model is then as it was.
    """
    from diffusers.loaders.lora_base import _fetch_state_dict
    from diffusers.utils import get_adapter_name

    where = {name: kwargs.pop(name, None) for name in _WHERE_TO_LOOK}
    safe = {"use_safetensors": True, "allow_pickle": False}
    state, metadata = _fetch_state_dict(source, **where, **safe, user_agent={}, metadata=metadata)
    name = adapter_name or get_adapter_name(transformer)
    check_settings(metadata, prefix)
    targets = check_adapter(transformer, state, prefix)
    with _side_branches(transformer, targets):
        type(transformer).load_lora_adapter(
            transformer, state, prefix=prefix, hotswap=hotswap, metadata=metadata, adapter_name=name, **kwargs
        )
    # PEFT leaves what it adds in training mode, dropout included.
    transformer.train(transformer.training)


@contextmanager
def _side_branches(transformer: nn.Module, targets: list[str]) -> Iterator[None]:
    """A place for adapters around each quantized layer among ``targets``, taken out again if the block fails."""
    from dvdq_models.lora.layer import LoraQuantizedLinear

    layers = {name: transformer.get_submodule(name) for name in targets}
    quantized = {name: layer for name, layer in layers.items() if isinstance(layer, QuantizedLinear)}
    for name, layer in quantized.items():
        transformer.set_submodule(name, LoraQuantizedLinear(layer))
    try:
        yield
    except BaseException:
        for name, layer in quantized.items():
            transformer.set_submodule(name, layer)
        raise


def _fuse_lora(transformer: nn.Module, *args: Any, **kwargs: Any) -> NoReturn:
    expected = "LoRA left beside quantized layers: codes that take up a float have to be quantized anew"
    raise DvdqError("fuse_lora", where=type(transformer).__name__, expected=expected, got="a merge into them")


def _save_pretrained(transformer: Any, *args: Any, **kwargs: Any) -> Any:
    refuse_adapters("save_pretrained", transformer)
    return type(transformer).save_pretrained(transformer, *args, **kwargs)
