"""Whether an adapter can be applied as a whole: every tensor has its layer, and none is left over.

diffusers skips what it does not know, with a warning at best. Here that is an error that names it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.errors import DvdqError

OPERATION = "load LoRA"
_OTHER_METHODS = {
    r"lora_magnitude_vector|dora_scale": "DoRA",
    r"lora_controlnet": "Control LoRA",
    r"lokr_\w+": "LoKr",
    r"hada_\w+": "LoHa",
    r"diff|diff_b": "whole differences of weights",
}
"""What a part of a tensor's name gives away."""
_UNDERSTOOD = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_bias",
        "lora_dropout",
        "peft_version",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
"""Settings of a LoRA that may have any value; the others must have PEFT's default."""


def check_adapter(
    transformer: nn.Module, state: dict[str, torch.Tensor], prefix: str | None, *, allow_skipping: bool = False
) -> tuple[list[str], list[str]]:
    """The names of the layers that ``state`` adapts, and the keys of what has no place in ``transformer``.

    To each layer belong ``<prefix>.<layer>.lora_A.weight`` ``[r, in]`` and ``lora_B.weight`` ``[out, r]``, and to all
    or none a ``lora_B.bias`` ``[out]``.

    Raises:
        DvdqError: a layer without its ``A`` or ``B``, a shape that does not fit it, NaN or Inf, nothing that has a
            place; and unless ``allow_skipping`` the first key that has none: of another method than LoRA (named), of
            another model than ``prefix``, or of a layer that the transformer lacks.
    """
    if not state:
        raise DvdqError(OPERATION, expected="an adapter", got="no tensors")
    start = "" if prefix is None else f"{prefix}."
    modules = dict(transformer.named_modules())
    layers: dict[str, dict[str, torch.Tensor]] = {}
    refusals: dict[str, DvdqError] = {}
    for key, tensor in state.items():
        match = re.fullmatch(rf"{re.escape(start)}(.+)\.lora_(A\.weight|B\.weight|B\.bias)", key)
        if method := _other_method(key):
            refusals[key] = DvdqError(OPERATION, where=key, expected="plain LoRA", got=method)
        elif match is None:
            expected = f"{start}<layer>.lora_A.weight or lora_B.weight"
            refusals[key] = DvdqError(OPERATION, where=key, expected=expected, got="neither")
        elif match[1] not in modules:
            expected = f"a layer of {type(transformer).__name__}"
            refusals[key] = DvdqError(OPERATION, where=match[1], expected=expected, got="one that it lacks")
        else:
            layers.setdefault(match[1], {})[match[2]] = tensor
            if not bool(torch.isfinite(tensor).all()):
                raise DvdqError(OPERATION, where=key, expected="finite values", got="NaN or Inf")
    if refusals and not (allow_skipping and layers):
        raise next(iter(refusals.values()))
    parts = {part for tensors in layers.values() for part in tensors} | {"A.weight", "B.weight"}
    for name, tensors in layers.items():
        _check_layer(name, modules[name], tensors, parts)
    return list(layers), list(refusals)


def check_settings(metadata: dict[str, Any] | None, prefix: str | None) -> None:
    """Refuse settings, as PEFT stores them in a LoRA's file, that ask for anything but a plain sum of products."""
    if metadata is None:
        return
    from peft import LoraConfig

    defaults: dict[str, Any] = LoraConfig().to_dict()  # type: ignore[no-untyped-call]  # peft annotates only some
    for key, value in metadata.items():
        name = key if prefix is None else key.removeprefix(f"{prefix}.")
        plain = value == defaults.get(name) or (name == "init_lora_weights" and value in (False, "gaussian"))
        if name not in _UNDERSTOOD and not plain:
            raise DvdqError(OPERATION, where=name, expected=f"plain LoRA, {defaults.get(name)!r}", got=repr(value))


def _other_method(key: str) -> str | None:
    return next((method for mark, method in _OTHER_METHODS.items() if re.search(rf"(^|\.)({mark})(\.|$)", key)), None)


def _check_layer(name: str, module: nn.Module, tensors: dict[str, torch.Tensor], parts: set[str]) -> None:
    if missing := sorted(parts - tensors.keys()):
        raise DvdqError(OPERATION, where=name, expected=f"lora_{missing[0]}, as other layers have", got="none")
    layer = getattr(module, "base_layer", module)
    if not isinstance(layer, QuantizedLinear | nn.Linear):
        return
    rank = tensors["A.weight"].shape[0]
    expected = {
        "A.weight": (rank, layer.in_features),
        "B.weight": (layer.out_features, rank),
        "B.bias": (layer.out_features,),
    }
    for part, tensor in tensors.items():
        if tuple(tensor.shape) != expected[part]:
            where = f"{name}.lora_{part}"
            raise DvdqError(OPERATION, where=where, expected=f"shape {list(expected[part])}", got=list(tensor.shape))
