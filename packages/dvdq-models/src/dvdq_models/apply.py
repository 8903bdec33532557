"""A recipe applied to a transformer: every linear that its family names is replaced by integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from diffusers.hooks.group_offloading import _GROUP_OFFLOADING
from diffusers.hooks.layerwise_casting import _LAYERWISE_CASTING_HOOK
from torch import nn

from dvdq_kernels.registry import offering
from dvdq_kernels.rotation import check_rotation
from dvdq_models.diffusers_plugin.copying import accept_copies
from dvdq_models.diffusers_plugin.methods import accept_methods
from dvdq_models.families import family_of
from dvdq_models.families.moments import Weights
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.layers.casting import FLOATS
from dvdq_models.layers.encoding import LastFeedback, check_weight
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.lora import accept_lora, refuse_adapters
from dvdq_models.quantization_config import DVDQuantConfig, mark_quantized
from dvdq_models.switching.hook import attach
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.recipe import Recipe

_BY_LAYER = (_GROUP_OFFLOADING, _LAYERWISE_CASTING_HOOK)
"""Hooks of diffusers that belong to single layers."""
Transformer = TypeVar("Transformer", bound=nn.Module)
Progress = Callable[[str, int, int], None]
"""Called after each layer with its name, how many are done and how many there are."""


def quantize(
    transformer: Transformer,
    recipe: Recipe,
    *,
    channel_maxima: Mapping[str, torch.Tensor] | None = None,
    moments: Mapping[str, torch.Tensor] | None = None,
    backend: str = "auto",
    progress: Progress | None = None,
) -> Transformer:
    """Quantize ``transformer`` in place, without data unless the recipe calibrates, and return it.

    Everything that can be refused is looked at before the first layer changes: the family, every layer's shape under
    the recipe, and every weight's finiteness. Weights are then replaced one at a time, so the peak above the model
    itself is one layer.

    Args:
        transformer: a diffusers transformer of a known family, in any float dtype, on any device.
        recipe: e.g. ``Recipe.named("dvd-quant", "W4A6")``.
        channel_maxima: ``max |X_j|`` of each layer's input channels, by layer, for a recipe that calibrates: what
            :meth:`dvdq_models.calibration.Calibration.of` gives.
        moments: ``E[X_i X_j]`` of each layer's input channels, for a recipe that rounds with feedback: what
            :meth:`dvdq_models.calibration.Calibration.moments_of` gives.
        backend: which kernels run, as in :func:`dvdq_kernels.quantized_linear`.
        progress: told of each finished layer.

    Raises:
        DvdqError: an unknown family or layer, a model already quantized, statistics that are missing, not needed or of
            another model, a shape that the recipe cannot take, a weight with NaN or Inf; the model is then as it was.
    """
    magnitudes = magnitudes_of(transformer, recipe, lambda name: transformer.get_parameter(name).data)
    layers = prepare_layers(transformer, recipe, channel_maxima, moments, backend=backend, check_values=True)
    maxima, moments, last = magnitudes or channel_maxima or {}, moments or {}, LastFeedback()
    for done, (name, (linear, layer)) in enumerate(layers.items(), start=1):
        layer.quantize_(linear.weight, maxima.get(name), moments.get(name), last)
        transformer.set_submodule(name, layer)
        if progress is not None:
            progress(name, done, len(layers))
    mark_quantized(transformer, DVDQuantConfig(recipe, backend=backend))
    return transformer


def magnitudes_of(transformer: Any, recipe: Recipe, weights: Weights) -> dict[str, torch.Tensor]:
    """What a recipe that smooths without data has for ``channel_maxima``; nothing of any other recipe.

    Args:
        transformer: whose family and configuration count; it may be empty.
        recipe: that smooths or not.
        weights: the transformer's parameters by name, as they are quantized.
    """
    if recipe.smoothing is None or recipe.smoothing.calibrated:
        return {}
    return family_of(transformer).magnitudes(lambda name: weights(name).cpu(), transformer.config)


def prepare_layers(
    transformer: nn.Module,
    recipe: Recipe,
    channel_maxima: Mapping[str, torch.Tensor] | None = None,
    moments: Mapping[str, torch.Tensor] | None = None,
    *,
    backend: str = "auto",
    check_values: bool = False,
    encoded: bool = False,
) -> dict[str, tuple[nn.Linear, QuantizedLinear]]:
    """The empty layer that is to take each linear's place, by name, and the bit schedule attached to the transformer.

    The layers are not yet put in; :func:`quantize` and :func:`dvdq_models.load` fill and place them. All that can be
    refused is refused before anything is attached.

    Args:
        transformer: in full precision.
        recipe: of the layers.
        channel_maxima: statistics, for a recipe that calibrates, and
        moments: for one that rounds with feedback.
        backend: which kernels run.
        check_values: whether weights are looked at for NaN and Inf.
        encoded: whether the layers will get what was encoded before, so that statistics are not needed.
    """
    operation = "quantize"
    refuse_adapters(operation, transformer)
    _refuse_hooks(operation, transformer)
    if any(isinstance(module, QuantizedLinear) for module in transformer.modules()):
        raise DvdqError(operation, expected="a model in full precision", got="one that is quantized already")
    _check_backend(operation, backend)
    for grid in dict.fromkeys(rule.grid for rule in recipe.weights):
        if backend != "auto" and backend not in (able := offering("quantize_weight", grid)):
            expected = f"{' or '.join(able)}, which search the grid {grid}"
            raise DvdqError(operation, where="backend", expected=expected, got=repr(backend))
    treatments = family_of(transformer).treatments(transformer)
    linears = {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name: linears[name] for name, how in treatments.items() if how != "keep"}
    for name, linear in chosen.items():
        _check_layer(f"{operation}: {name}", linear, recipe, check_values=check_values)
    state = ActivationState(recipe.schedule.high)
    layers = {}
    for name, linear in chosen.items():
        weight_only = treatments[name] == "weight-only"
        layers[name] = (linear, QuantizedLinear.like(linear, recipe, state, weight_only=weight_only, backend=backend))
    if not encoded:
        _check_maxima(operation, recipe, {name: layer for name, (_, layer) in layers.items()}, channel_maxima)
        _check_moments(operation, recipe, {name: layer for name, (_, layer) in layers.items()}, moments)
    attach(transformer, recipe, state)
    accept_copies(transformer)
    accept_methods(transformer)
    accept_lora(transformer)
    return layers


def _check_maxima(
    operation: str, recipe: Recipe, layers: Mapping[str, QuantizedLinear], maxima: Mapping[str, torch.Tensor] | None
) -> None:
    """Refuse ``maxima`` that are not those of all ``layers`` that smooth, and any if the recipe does not smooth."""
    if not recipe.smooths_by_maxima:
        if maxima is not None:
            raise DvdqError(operation, where=recipe.name, expected="no calibration: it uses none", got="statistics")
        return
    if maxima is None:
        expected = "calibration of its activations (dvdq calibrate)"
        raise DvdqError(operation, where=recipe.name, expected=expected, got="none")
    for name, layer in layers.items():
        if layer.smoothing is None:
            continue
        if name not in maxima or maxima[name].shape != (layer.in_features,):
            got = list(maxima[name].shape) if name in maxima else "none, as of another model"
            raise DvdqError(operation, where=name, expected=f"calibrated maxima [{layer.in_features}]", got=got)
        if not bool((maxima[name].isfinite() & (maxima[name] >= 0)).all()):
            raise DvdqError(operation, where=name, expected="maxima that are finite and >= 0", got="others")


def _check_moments(
    operation: str, recipe: Recipe, layers: Mapping[str, QuantizedLinear], moments: Mapping[str, torch.Tensor] | None
) -> None:
    """Refuse ``moments`` that are not those of all ``layers``, and any if the recipe rounds to nearest."""
    if not recipe.feeds_back:
        if moments is not None:
            expected = "no second moments: it rounds to nearest"
            raise DvdqError(operation, where=recipe.name, expected=expected, got="some")
        return
    if moments is None:
        expected = "second moments of its activations (dvdq calibrate --moments)"
        raise DvdqError(operation, where=recipe.name, expected=expected, got="none")
    for name, layer in layers.items():
        size = [layer.in_features] * 2
        if name not in moments or list(moments[name].shape) != size:
            got = list(moments[name].shape) if name in moments else "none, as of another model"
            raise DvdqError(operation, where=name, expected=f"second moments {size}", got=got)
        if not bool(moments[name].isfinite().all() & (moments[name].diagonal() >= 0).all()):
            expected = "second moments that are finite, and of one channel >= 0"
            raise DvdqError(operation, where=name, expected=expected, got="others")


def use_backend(transformer: nn.Module, backend: str) -> None:
    """Let the layers of a quantized transformer run other kernels; an unknown name is a :class:`DvdqError`."""
    _check_backend("use_backend", backend)
    for module in transformer.modules():
        if isinstance(module, QuantizedLinear):
            module.backend = backend


def _check_backend(operation: str, backend: str) -> None:
    names = offering("quantized_linear")
    if backend != "auto" and backend not in names:
        raise DvdqError(operation, where="backend", expected=f"auto, {', '.join(names)}", got=repr(backend))


def _refuse_hooks(operation: str, transformer: nn.Module) -> None:
    """What moves or casts single layers keeps those that are there, and would not know those that take their place."""
    expected = "a model without offloading of single layers and layerwise casting; turn them on afterwards"
    for name, module in transformer.named_modules():
        registry = getattr(module, "_diffusers_hook", None)
        hooks = [name for name in _BY_LAYER if registry is not None and name in registry.hooks]
        if hooks or (isinstance(module, nn.Linear) and hasattr(module, "_hf_hook")):
            got = hooks[0] if hooks else "a hook of accelerate"
            raise DvdqError(operation, where=name or type(transformer).__name__, expected=expected, got=got)


def _check_layer(operation: str, linear: nn.Linear, recipe: Recipe, *, check_values: bool) -> None:
    count_parts(operation, linear.in_features, recipe.activation.block)
    for rule in recipe.weights:
        count_parts(operation, linear.in_features, rule.group_size)
        packed_width(operation, linear.in_features, rule.bits)
    if recipe.rotation is not None:
        check_rotation(operation, linear.in_features, recipe.rotation)
    if not check_values:
        return
    if linear.weight.dtype not in FLOATS:
        raise DvdqError(operation, expected=f"weights in {' or '.join(map(str, FLOATS))}", got=linear.weight.dtype)
    check_weight(operation, None, linear.weight)
