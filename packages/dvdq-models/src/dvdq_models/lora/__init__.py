"""LoRA on a quantized transformer: a side branch on each layer's own input, ``Y = quantized_linear(x) + s B(A(x))``.

``x`` is what the layer was given, before any rotation, so an adapter adds just what it adds to the full-precision
model. Everything goes through diffusers' usual calls. They end at methods of the transformer, and a quantized one has
its own (:func:`accept_lora`): one checks an adapter as a whole before PEFT sees it, one saves it, and those that would
merge floats into codes, or save a model together with an adapter, are refused.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from diffusers.utils import logging
from torch import nn

from dvdq_models.files.atomic import new_file
from dvdq_models.files.destinations import check_new_file
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.lora.adapter import OPERATION, check_adapter, check_settings
from dvdq_models.lora.fetching import LOADING, fetch, only_where
from dvdq_models.lora.origins import Traced, unread
from dvdq_reference.spec.errors import DvdqError

_logger = logging.get_logger(__name__)


def accept_lora(transformer: nn.Module) -> None:
    """Make the methods of this one transformer that concern LoRA those of a quantized model."""
    methods = {
        "add_adapter": partial(_add_adapter, transformer),
        "fuse_lora": partial(_fuse_lora, transformer),
        "load_lora_adapter": partial(_load_lora_adapter, transformer),
        "save_lora_adapter": partial(_save_lora_adapter, transformer),
        "save_pretrained": partial(_save_pretrained, transformer),
    }
    for name, method in methods.items():
        if not hasattr(transformer, name):
            continue  # a model that diffusers loads no adapters into
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
    allow_skipping: bool = False,
    **kwargs: Any,
) -> tuple[str, ...]:
    """diffusers' ``load_lora_adapter`` with the same arguments, for a transformer whose linears are quantized.

    Args:
        allow_skipping: leave out what the model has no place for, as a warning lists, instead of refusing all.

    Returns:
        The names of the tensors that were left out, which are none unless ``allow_skipping``.

    Raises:
        DvdqError: whatever :func:`check_adapter` and :func:`check_settings` refuse; the model is then as it was.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft, get_adapter_name

    loading, elsewhere = LOADING.get(), dict[str, torch.Tensor]()
    if loading is None:
        file, metadata = fetch(source, only_where(kwargs), metadata)
        state: dict[str, torch.Tensor] = dict(file)
    else:  # a pipeline's call, which fetched and converted what is in the file
        file, metadata, allow_skipping, state = loading.file, loading.metadata, loading.allow_skipping, source
        elsewhere.update(loading.elsewhere)
    if state and not any("lora_A" in key for key in state):
        state = convert_unet_state_dict_to_peft(state)  # names from before PEFT
    name = adapter_name or get_adapter_name(transformer)
    check_settings(metadata, prefix)
    skipped = unread(file, state | elsewhere)
    if skipped and not allow_skipping:
        expected = "an adapter that is applied as a whole (allow_skipping=True leaves out what is not)"
        raise DvdqError(OPERATION, where=skipped[0], expected=expected, got=f"{len(skipped)} tensors that are not read")
    targets, left_out = check_adapter(transformer, state, prefix, allow_skipping=allow_skipping)
    for key in left_out:
        tensor = state.pop(key)
        skipped += sorted(tensor.origins) if isinstance(tensor, Traced) else [key]
    if skipped:
        _logger.warning(f"{OPERATION}: left out {len(skipped)} of {len(file)} tensors: {', '.join(skipped)}")
    plain = {key: tensor.plain() if isinstance(tensor, Traced) else tensor for key, tensor in state.items()}
    with _side_branches(transformer, targets):
        type(transformer).load_lora_adapter(
            transformer, plain, prefix=prefix, hotswap=hotswap, metadata=metadata, adapter_name=name, **kwargs
        )
    # PEFT leaves what it adds in training mode, dropout included.
    transformer.train(transformer.training)
    if loading is not None:
        loading.skipped = tuple(skipped)
    return tuple(skipped)


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


def _add_adapter(transformer: nn.Module, *args: Any, **kwargs: Any) -> NoReturn:
    expected = "a trained adapter, by load_lora_adapter: codes have no gradient to train one beside them"
    raise DvdqError("add_adapter", where=type(transformer).__name__, expected=expected, got="a new one")


def _fuse_lora(transformer: nn.Module, *args: Any, **kwargs: Any) -> NoReturn:
    expected = "LoRA left beside quantized layers: codes that take up a float have to be quantized anew"
    raise DvdqError("fuse_lora", where=type(transformer).__name__, expected=expected, got="a merge into them")


def _save_lora_adapter(
    transformer: Any,
    save_directory: str | Path,
    adapter_name: str = "default",
    upcast_before_saving: bool = False,
    safe_serialization: bool = True,
    weight_name: str | None = None,
) -> None:
    """diffusers' ``save_lora_adapter``, which would cast the whole model; never a pickle.

    Raises:
        DvdqError: no such adapter, ``safe_serialization=False``, or a place that cannot be written.
    """
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    operation, configs = "save_lora_adapter", getattr(transformer, "peft_config", {})
    if adapter_name not in configs:
        raise DvdqError(
            operation, where=repr(adapter_name), expected=f"one of {sorted(configs)}", got="no such adapter"
        )
    if not safe_serialization:
        raise DvdqError(operation, where="safe_serialization", expected="True", got=False)
    path = Path(save_directory) / (weight_name or LORA_WEIGHT_NAME_SAFE)
    check_new_file(operation, path, (".safetensors",), replace=True)
    state = get_peft_model_state_dict(transformer, adapter_name=adapter_name)
    if upcast_before_saving:
        state = {key: tensor.float() for key, tensor in state.items()}
    settings = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in configs[adapter_name].to_dict().items()
    }
    metadata = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(settings, indent=2, sort_keys=True)}
    with new_file(path) as part:
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, part, metadata=metadata)


def _save_pretrained(transformer: Any, *args: Any, **kwargs: Any) -> Any:
    refuse_adapters("save_pretrained", transformer)
    return type(transformer).save_pretrained(transformer, *args, **kwargs)
