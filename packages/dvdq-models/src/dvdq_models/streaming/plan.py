"""What each tensor of a transformer becomes, from its configuration and the headers of its files alone.

The result is that of diffusers' ``from_pretrained`` in the dtype of most of the checkpoint's numbers, then
:func:`dvdq_models.quantize`, then :func:`dvdq_models.save`: the modules that diffusers keeps in float32 are float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from dvdq_models.apply import magnitudes_of, prepare_layers
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import LazyTensor, most_common_dtype
from dvdq_models.families.configurations import empty_transformer_of
from dvdq_models.inspecting.sizes import ModelReport, describe
from dvdq_models.layers.casting import cast
from dvdq_models.layers.encoding import LastFeedback, check_weight
from dvdq_models.streaming.source import OPERATION, TransformerSource
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

Encode = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
"""Makes the tensors to write of the one that was read."""


@dataclass(frozen=True)
class Step:
    """One tensor of the source, and what is written of it: codes and their grid, or itself in its dtype.

    Args:
        name: of the module or tensor, e.g. ``blocks.0.attn1.to_q``.
        source: the tensor.
        apply: makes the tensors to write, by name, of the one that was read.
    """

    name: str
    source: LazyTensor
    apply: Encode


@dataclass(frozen=True)
class TransformerPlan:
    """All steps of a transformer in the model's order, and the types of the tensors that they write."""

    subfolder: str
    config: dict[str, Any]
    steps: tuple[Step, ...]
    outputs: Mapping[str, TensorType]
    report: ModelReport


def plan_transformer(
    source: TransformerSource,
    recipe: Recipe,
    device: torch.device,
    backend: str = "auto",
    channel_maxima: Mapping[str, torch.Tensor] | None = None,
    moments: Mapping[str, torch.Tensor] | None = None,
) -> TransformerPlan:
    """The plan of one transformer; ``channel_maxima`` and ``moments`` as for :func:`dvdq_models.quantize`.

    Raises:
        DvdqError: an unknown family or layer, a shape that the recipe cannot take, statistics that do not fit, a tensor
            that is missing, that the model does not have, or that has another shape; the first of each kind is named.
    """
    transformer = empty_transformer_of(OPERATION, source.where, source.config, buffers=False)
    report = describe(transformer, recipe)
    config = json.loads(transformer.to_json_string())
    expected = {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
    check_names(source, expected, transformer._keys_to_ignore_on_load_unexpected or ())
    dtype = most_common_dtype(source.tensors)
    kept = set(transformer._keep_in_fp32_modules or ())

    def type_of(name: str) -> torch.dtype:
        return torch.float32 if kept & set(name.split(".")) else dtype

    def weight_of(name: str) -> torch.Tensor:
        return cast(OPERATION, source.tensors[name].where, source.tensors[name].read(), type_of(name))

    magnitudes = magnitudes_of(transformer, recipe, weight_of)
    swapped = prepare_layers(transformer, recipe, channel_maxima, moments, backend=backend)
    layers = {name: layer for name, (_, layer) in swapped.items()}
    maxima, moments, last = magnitudes or channel_maxima or {}, moments or {}, LastFeedback()
    steps: list[Step] = []
    types: dict[str, torch.dtype] = {}
    for name in expected:
        module, _, leaf = name.rpartition(".")
        tensor, to = source.tensors[name], type_of(name)
        if leaf == "weight" and module in layers:
            encode = partial(
                layers[module].encode, channel_max=maxima.get(module), moments=moments.get(module), last=last
            )
            steps.append(Step(module, tensor, partial(_quantize, tensor.where, module, encode, to, device)))
        else:
            steps.append(Step(name, tensor, cast_step(tensor.where, name, to)))
        types[name] = to
    for module, layer in layers.items():
        transformer.set_submodule(module, layer)
    outputs = {
        name: TensorType(tuple(tensor.shape), types.get(name, tensor.dtype))
        for name, tensor in transformer.state_dict().items()
    }
    return TransformerPlan(source.subfolder, config, tuple(steps), outputs, report)


def check_names(source: TransformerSource, expected: Mapping[str, tuple[int, ...]], ignored: Any) -> None:
    """A :class:`DvdqError` unless the source has the model's tensors, in their shapes, and no others."""
    where, found = str(source.where), source.tensors
    if missing := [name for name in expected if name not in found]:
        raise DvdqError(OPERATION, where=where, expected=f"tensor {missing[0]}", got=f"{len(missing)} missing")
    others = [name for name in found if name not in expected and not any(part in name for part in ignored)]
    if others:
        raise DvdqError(OPERATION, where=where, expected="no other tensors than the model's", got=others[0])
    for name, shape in expected.items():
        if found[name].type.shape != shape:
            got = list(found[name].type.shape)
            raise DvdqError(OPERATION, where=f"{found[name].where} ({name})", expected=list(shape), got=got)


def _quantize(
    where: str, name: str, encode: Encode, dtype: torch.dtype, device: torch.device, weight: torch.Tensor
) -> dict[str, torch.Tensor]:
    check_weight(OPERATION, where, weight)
    weight = cast(OPERATION, where, weight, dtype)
    return {f"{name}.{part}": tensor for part, tensor in encode(weight.to(device)).items()}


def cast_step(where: str, name: str, dtype: torch.dtype) -> Encode:
    """Writes the tensor itself, in ``dtype``; NaN and Inf are refused."""
    return partial(_cast, where, name, dtype)


def _cast(where: str, name: str, dtype: torch.dtype, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    _check_finite(where, tensor)
    return {name: cast(OPERATION, where, tensor, dtype)}


def _check_finite(where: str, tensor: torch.Tensor) -> None:
    # Extremes carry NaN and Inf, at the cost of one pass and no copy.
    if tensor.is_floating_point() and tensor.numel() and not all(e.isfinite() for e in torch.aminmax(tensor)):
        raise DvdqError(OPERATION, where=where, expected="finite weights", got="NaN or Inf")
