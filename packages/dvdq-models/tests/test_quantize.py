"""A recipe on a transformer: what changes, what stays, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dvdq_kernels.backend import Backend
from dvdq_kernels.registry import registered
from dvdq_models import DvdqError, Recipe, quantize
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.oracle import bounds, linear, packing
from dvdq_reference.oracle.affine import Grid
from dvdq_reference.oracle.recipe import recipe_linear
from dvdq_reference.spec.recipe import ActivationRule, WeightRule

QUANTIZED = 20
"""Ten linears in each of two blocks."""
RECIPES = [
    *(Recipe.named(name, bits) for name in ("minmax", "quarot", "dvd-quant") for bits in ("W4A8", "W4A4")),
    Recipe.named("dvd-quant", "W4A4", weight=WeightRule(4, "bgr", 64), activation=ActivationRule(4, 64, "gaussian")),
]


def _layers(transformer: Any) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in transformer.named_modules() if isinstance(module, QuantizedLinear)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.name}-A{r.activation.bits}-g{r.weight.group_size}")
@pytest.mark.parametrize("name", ["blocks.0.attn1.to_q", "blocks.1.ffn.net.2"])
def test_a_layer_computes_what_the_oracle_says(transformer: Any, recipe: Recipe, name: str) -> None:
    bias = transformer.get_submodule(name).bias.detach().clone()
    layer = _layers(quantize(transformer, recipe))[name]
    layer.state.bits = recipe.activation.bits
    x = torch.randn(9, layer.in_features, generator=torch.Generator().manual_seed(3))
    zero = np.full(layer.scale.shape, 8) if layer.zero is None else layer.zero.numpy().astype(np.int64)
    grid = Grid(layer.scale.numpy().astype(np.float64), zero, 4)
    codes = packing.unpack(layer.qweight.numpy(), 4, layer.in_features)
    keywords = {"rotation": recipe.rotation, "bias": bias.numpy()}
    expected = linear.quantized_linear(x.numpy(), codes, grid, recipe.activation, **keywords)
    tolerance = bounds.linear_float32(x.numpy(), codes, grid, recipe.activation, **keywords)
    with torch.inference_mode():
        got = layer(x).numpy()
    assert (np.abs(got - expected) <= tolerance).all()


def test_every_matched_linear_is_replaced_and_nothing_else(transformer: Any) -> None:
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    assert quantize(transformer, Recipe.named("dvd-quant", "W4A8")) is transformer
    layers = _layers(transformer)
    assert len(layers) == QUANTIZED
    kept = {name: tensor for name, tensor in transformer.state_dict().items() if name in before}
    assert before.keys() - kept.keys() == {f"{name}.weight" for name in layers}
    assert all(torch.equal(before[name], tensor) for name, tensor in kept.items())


def test_more_bits_are_closer_to_full_precision(transformer: Any, call: Callable[..., torch.Tensor]) -> None:
    exact = call(transformer)
    errors = []
    for weight_bits, bits in ((4, 4), (4, 8), (8, 8)):
        recipe = Recipe.named("dvd-quant", f"W{weight_bits}A{bits}")
        errors.append((call(quantize(copy.deepcopy(transformer), recipe)) - exact).norm().item())
    assert errors == sorted(errors, reverse=True)


def test_progress_is_told_of_every_layer(transformer: Any) -> None:
    told: list[tuple[str, int, int]] = []
    quantize(transformer, Recipe.named("minmax"), progress=lambda *args: told.append(args))
    assert [done for _, done, _ in told] == list(range(1, QUANTIZED + 1))
    assert {total for *_, total in told} == {QUANTIZED}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            Recipe.named("smoothquant"),
            r"smoothquant: expected calibration of its activations \(dvdq calibrate\), got none",
        ),
        (Recipe.named("dvd-quant", weight=WeightRule(4, "bgr", 100)), r"blocks\.0\.attn1\.to_q: expected a size"),
        (Recipe.named("dvd-quant", activation=ActivationRule(8, 256)), r"blocks\.0\.attn1\.to_q: expected a size"),
    ],
)
def test_a_recipe_that_does_not_fit_changes_nothing(transformer: Any, recipe: Recipe, message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        quantize(transformer, recipe)
    assert not _layers(transformer)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_weight_is_named_and_changes_nothing(transformer: Any, value: float) -> None:
    with torch.no_grad():
        transformer.blocks[1].attn2.to_k.weight[3, 5] = value
    with pytest.raises(DvdqError, match=r"blocks\.1\.attn2\.to_k: expected finite weights, got NaN or Inf"):
        quantize(transformer, Recipe.named("minmax"))
    assert not _layers(transformer)


def test_quantizing_twice_is_an_error(transformer: Any) -> None:
    quantize(transformer, Recipe.named("minmax"))
    with pytest.raises(DvdqError, match="quantized already"):
        quantize(transformer, Recipe.named("minmax"))


@pytest.mark.parametrize("name", ["fpga", "weights-alone"])
def test_a_backend_without_linears_is_an_error_before_anything_changes(transformer: Any, name: str) -> None:
    alone = Backend("weights-alone", lambda: pytest.fail("loaded"), offers=frozenset({"quantize_weight"}))
    with registered(alone), pytest.raises(DvdqError, match="backend: expected auto"):
        quantize(transformer, Recipe.named("minmax"), backend=name)
    assert not _layers(transformer)


def test_a_backend_without_the_grid_is_an_error_before_anything_changes(transformer: Any) -> None:
    recipe = Recipe.named("quarot", weight=WeightRule(4, "clip-search", symmetric=True))
    with pytest.raises(DvdqError, match=r"backend: expected .*torch, which search the grid clip-search, got 'triton'"):
        quantize(transformer, recipe, backend="triton")
    assert not _layers(transformer)
    assert len(_layers(quantize(transformer, recipe))) == QUANTIZED


@pytest.mark.parametrize("bits", ["W4A8", "W4A4"])
@pytest.mark.parametrize("name", ["minmax", "smoothquant", "quarot", "vidit-q", "dvd-quant", "dvd-quant-plus"])
def test_a_layer_under_a_recipe_is_the_oracles_linear(transformer: Any, name: str, bits: str) -> None:
    recipe = Recipe.named(name, bits)
    if name == "dvd-quant-plus":  # its groups are wider than this model
        recipe = dataclasses.replace(recipe, weight=WeightRule(4, "bgr", 64))
    generator = torch.Generator().manual_seed(4)
    linear_ = transformer.get_submodule("blocks.1.ffn.net.2")
    weight, bias = linear_.weight.detach().double().numpy(), linear_.bias.detach().double().numpy()
    x = torch.randn(33, weight.shape[1], generator=generator) * torch.rand(weight.shape[1], generator=generator).exp()
    peaks = x.abs().amax(dim=0)
    maxima = None
    if recipe.smoothing is not None:
        maxima = {
            n: torch.ones(m.in_features) for n, m in transformer.named_modules() if isinstance(m, torch.nn.Linear)
        }
        maxima["blocks.1.ffn.net.2"] = peaks
    layer = _layers(quantize(transformer, recipe, channel_maxima=maxima))["blocks.1.ffn.net.2"]
    layer.state.bits = recipe.schedule.high
    with torch.inference_mode():
        got = layer(x).double().numpy()
    known = peaks.numpy() if recipe.smoothing is not None else None
    wanted = recipe_linear(x.numpy(), weight, recipe, x_max=known, bits=recipe.schedule.high, bias=bias)
    exact = x.double().numpy() @ weight.T + bias
    # Codes on ties may fall the other way in float32: far less than the error that the recipe makes.
    assert np.linalg.norm(got - wanted) <= 0.02 * np.linalg.norm(wanted - exact)


def test_a_cast_leaves_codes_and_scales_as_they_are(transformer: Any) -> None:
    layer = _layers(quantize(transformer, Recipe.named("dvd-quant")))["blocks.0.ffn.net.0.proj"]
    before = [layer.qweight.clone(), layer.scale.clone(), layer.zero.clone() if layer.zero is not None else None]
    transformer.blocks.to(torch.bfloat16)  # the transformer itself is diffusers', which refuses
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    for tensor, was in zip((layer.qweight, layer.scale, layer.zero), before, strict=True):
        assert tensor is not None
        assert was is not None
        assert tensor.dtype == was.dtype
        assert torch.equal(tensor, was)


def test_a_quantized_block_compiles_into_one_graph_a_width(transformer: Any) -> None:
    recipe = Recipe.named("dvd-quant", "W4A6")
    layer = _layers(quantize(transformer, recipe))["blocks.0.attn1.to_q"]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, layer.in_features)
    torch._dynamo.utils.counters.clear()
    with torch.inference_mode():
        for bits in (8, 4, 8, 4):
            layer.state.bits = bits
            assert torch.equal(compiled(x), layer(x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len({4, 8})


def test_a_recipe_of_other_bits_keeps_its_rule(transformer: Any) -> None:
    recipe = dataclasses.replace(Recipe.named("dvd-quant", "W8A8"), name="w8")
    layer = _layers(quantize(transformer, recipe))["blocks.0.attn1.to_q"]
    assert layer.qweight.shape == (layer.out_features, layer.in_features)
