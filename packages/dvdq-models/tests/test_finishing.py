"""A second set of codes: what the first left of each weight, added in the steps that finish and in no other."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import dvdq_kernels
from dvdq_kernels import dequantize, rotate
from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, quantize, save, trace
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.inspecting.sizes import describe, plan_layers
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.layers.linear import STORED, QuantizedLinear
from dvdq_models.running.placement import offload_finish
from dvdq_models.switching.hook import follow, set_ends
from dvdq_models.teacache import enable_teacache, teacache_trace
from dvdq_reference.oracle.recipe import recipe_linear
from dvdq_reference.spec.recipe import BitSchedule, WeightRule

STEPS = 5
RULE = WeightRule(4, "bgr", 64)
RECIPE = Recipe.named("dvd-quant", "W4A4", schedule=BitSchedule("low", low=4, high=8, last_high=2), finish=RULE)
PLAIN = dataclasses.replace(RECIPE, finish=None)


def _layers(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def _layer(
    recipe: Recipe, channel_max: torch.Tensor | None = None, *, weight_only: bool = False, backend: str = "auto"
) -> tuple[QuantizedLinear, nn.Linear]:
    """One layer, and the linear whose place it takes."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 24)
    with torch.no_grad():
        linear.weight *= torch.logspace(-1, 1, 24)[:, None]
    state = ActivationState(recipe.schedule.high)
    layer = QuantizedLinear.like(linear, recipe, state, weight_only=weight_only, backend=backend)
    layer.quantize_(linear.weight.detach(), channel_max)
    return layer, linear


def _able() -> list[str]:
    """Backends that run here, Triton's interpreter among them where it is asked for."""
    return [name for name, reason in dvdq_kernels.backends().items() if reason is None]


@pytest.mark.parametrize("backend", _able())
@pytest.mark.parametrize("name", ["dvd-quant", "minmax", "quarot", "vidit-q"])
def test_a_layer_that_finishes_is_the_oracles_linear(name: str, backend: str) -> None:
    recipe = Recipe.named(name, "W4A4", schedule=RECIPE.schedule, finish=RULE)
    x, peaks = torch.randn(9, 256, generator=torch.Generator().manual_seed(3)), None
    if recipe.smoothing is not None:
        peaks = x.abs().amax(dim=0)
    layer, linear = _layer(recipe, peaks, backend=backend)
    weight, bias = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    exact = x.double().numpy() @ weight.T + bias
    for finishing in (False, True):
        layer.state.finishing = finishing
        with torch.inference_mode():
            got = layer(x).double().numpy()
        known = None if peaks is None else peaks.numpy()
        wanted = recipe_linear(x.numpy(), weight, recipe, x_max=known, bits=8, bias=bias, finishing=finishing)
        # Codes on ties may fall the other way in float32: far less than the error that the recipe makes.
        assert np.linalg.norm(got - wanted) <= 0.02 * np.linalg.norm(wanted - exact)


@pytest.mark.parametrize("weight_only", [False, True])
def test_what_is_added_is_one_more_product_with_the_same_activations(weight_only: bool) -> None:
    layer, linear = _layer(RECIPE, weight_only=weight_only)
    assert layer.finish is not None
    x = torch.randn(7, 256, generator=torch.Generator().manual_seed(1))
    alone = copy.deepcopy(layer)
    alone.qweight, alone.scale, alone.zero, alone.bias = (
        layer.finish_qweight,
        layer.finish_scale,
        layer.finish_zero,
        None,
    )
    alone.recipe = dataclasses.replace(RECIPE, weight=RULE, finish=None)
    with torch.inference_mode():
        before, added = layer(x), alone(x)
        layer.state.finishing = True
        assert torch.equal(layer(x), before + added)
        both_products, exact = layer(x), linear(x)
    both = dequantize(layer.quantized) + dequantize(layer.finish)
    rotated = rotate(linear.weight.detach(), RECIPE.rotation)  # type: ignore[arg-type]  # it has one
    assert (rotated - both).norm() < (rotated - dequantize(layer.quantized)).norm() / 8
    assert (both_products - exact).norm() < (before - exact).norm() / 4
    assert torch.equal(layer(x), both_products)  # where gradients are recorded, too
    assert "W4+4A" in repr(layer)


def test_what_a_first_quantization_left_is_made_good_too() -> None:
    """ViDiT-Q quantizes ``W s`` twice; the second codes are of what both roundings left of it."""
    recipe = Recipe.named("vidit-q", "W4A4", schedule=RECIPE.schedule, finish=RULE)
    recipe = dataclasses.replace(recipe, smoothing=dataclasses.replace(recipe.smoothing, twice=True))  # type: ignore[type-var]  # it has one
    layer, linear = _layer(recipe, torch.rand(256, generator=torch.Generator().manual_seed(0)) + 0.5)
    assert layer.finish is not None
    rotated = rotate(linear.weight.detach() * layer.smoothing, recipe.rotation)  # type: ignore[arg-type, operator]
    left = rotated - dequantize(layer.quantized)
    assert (left - dequantize(layer.finish)).norm() < left.norm() / 8


def test_the_first_codes_are_those_of_the_recipe_without_it(transformer: Any) -> None:
    plain = quantize(copy.deepcopy(transformer), PLAIN).state_dict()
    both = quantize(transformer, RECIPE).state_dict()
    assert all(torch.equal(both[name], tensor) for name, tensor in plain.items())
    second = both.keys() - plain.keys()
    assert second == {f"{n}.{part}" for n in _layers(transformer) for part in STORED if part.startswith("finish_")}


def _products(transformer: Any) -> list[bool]:
    """Whether a layer's second codes were multiplied, one entry a call."""
    layer = next(iter(_layers(transformer).values()))
    seen: list[bool] = []
    layer.register_forward_pre_hook(lambda module, _: seen.append(module.state.finishing))
    return seen


@pytest.mark.parametrize(
    "schedule",
    [BitSchedule("low", last_high=2), BitSchedule(low=8, last_high=2), BitSchedule("delta", delta=0.1, last_high=2)],
    ids=lambda schedule: schedule.kind,
)
def test_the_last_steps_add_them_and_no_other(
    pipeline: Any, generate: Callable[..., torch.Tensor], schedule: BitSchedule
) -> None:
    plain = copy.deepcopy(pipeline.transformer)
    quantize(pipeline.transformer, dataclasses.replace(RECIPE, schedule=schedule))
    seen = _products(pipeline.transformer)
    latents = [generate(pipeline, STEPS, 4.0) for _ in range(2)]
    assert torch.equal(*latents)
    assert seen == [False] * 2 * (STEPS - 2) + [True] * 4 + [False] * 2 * (STEPS - 2) + [True] * 4
    decisions = trace(pipeline.transformer)
    pipeline.transformer = quantize(plain, dataclasses.replace(PLAIN, schedule=schedule))
    assert not torch.equal(generate(pipeline, STEPS, 4.0), latents[0])
    # Until then nothing differs, nor what is measured.
    assert trace(pipeline.transformer)[: STEPS - 2] == decisions[: STEPS - 2]


def test_a_video_that_finishes_is_nearer_to_full_precision(
    pipeline: Any, generate: Callable[..., torch.Tensor]
) -> None:
    full, errors = pipeline.transformer, []
    exact = generate(pipeline, STEPS, 1.0)
    for recipe in (Recipe.named("dvd-quant", "W4A4"), PLAIN, RECIPE):
        pipeline.transformer = quantize(copy.deepcopy(full), recipe)
        errors.append((generate(pipeline, STEPS, 1.0) - exact).norm().item())
    low, last_high, finished = errors
    assert finished < last_high < low


@pytest.mark.parametrize("family", ["transformer", "hunyuan_transformer"])
def test_reload_is_bit_identical_by_every_way(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(family)
    model.save_pretrained(str(tmp_path / "full"))
    on_load = type(model).from_pretrained(str(tmp_path / "full"), quantization_config=DVDQuantConfig(RECIPE))
    quantize(model, RECIPE)
    save(model, tmp_path / "ours")
    model.save_pretrained(str(tmp_path / "theirs"))
    quantized = [load(tmp_path / "ours"), load(tmp_path / "theirs"), on_load]
    for again in quantized:
        found, wanted = again.state_dict(), model.state_dict()
        assert found.keys() == wanted.keys()
        assert all(found[name].dtype == t.dtype and torch.equal(found[name], t) for name, t in wanted.items())
    config = json.loads((tmp_path / "ours/config.json").read_text())["quantization_config"]
    assert config == {"quant_method": "dvd-quant", "format": 2, "recipe": RECIPE.to_dict()}
    assert DVDQuantConfig.from_dict(config).recipe == RECIPE
    with pytest.raises(DvdqError, match="expected format 2, of its recipe, got 1"):
        DVDQuantConfig.from_dict(config | {"format": 1})


def test_scales_keep_their_dtype_and_a_file_of_another_is_refused(transformer: Any, tmp_path: Path) -> None:
    name = "blocks.0.attn1.to_q"
    quantize(transformer, RECIPE).to(torch.bfloat16)
    assert {t.dtype for n, t in transformer.state_dict().items() if "finish_" in n} == {
        torch.uint8,
        torch.float32,
        torch.int16,
    }
    layer = transformer.get_submodule(name)
    layer.finish_scale.data = layer.finish_scale.data.half()
    save(transformer, tmp_path / "q")
    with pytest.raises(DvdqError, match=rf"{name}\.finish_scale: expected torch\.float32"):
        load(tmp_path / "q")


def test_bytes_are_counted_before_and_after(transformer: Any, tmp_path: Path) -> None:
    planned = describe(transformer, RECIPE)
    done = describe(quantize(transformer.to(torch.bfloat16), RECIPE), RECIPE)
    tensors = load_file(save(transformer, tmp_path / "q") / f"{WEIGHTS}.safetensors").values()
    assert planned.bytes_after == done.bytes_after == sum(t.numel() * t.element_size() for t in tensors)
    assert planned.parameters == done.parameters
    kinds = {(p.activation_bits, p.finish) for p in plan_layers(done, 1000)}
    assert kinds == {(8, False), (8, True), (4, False)}


def test_a_cache_skips_them_with_the_rest_of_the_step(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    quantize(pipeline.transformer, RECIPE)
    follow(pipeline)
    enable_teacache(pipeline.transformer, 1e9, coefficients="wan2.1-t2v-14b", pipeline=pipeline)
    seen = _products(pipeline.transformer)
    generate(pipeline, 8, 1.0)
    computed = [d.step for d in teacache_trace(pipeline.transformer) if not d.reused]
    assert computed[-1] == 7
    assert seen == [step >= 6 for step in computed]


def test_compiled_blocks_have_one_graph_more(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    quantize(pipeline.transformer, dataclasses.replace(RECIPE, schedule=BitSchedule("delta", delta=1e9, last_high=2)))
    expected, graphs = generate(pipeline, STEPS), []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    pipeline.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
    assert torch.equal(generate(pipeline, STEPS), expected)
    # High, low, and high with what the first codes left; nothing again for the second video.
    assert len(graphs) == 3
    generate(pipeline, STEPS)
    assert len(graphs) == 3
    # One more for second sets that are brought, into which no stream and no layer's address went.
    offload_finish(pipeline.transformer)
    assert torch.equal(generate(pipeline, STEPS), expected)
    assert len(graphs) == 4


def test_lora_is_added_beside_both(transformer: Any) -> None:
    name, generator = "blocks.0.attn1.to_q", torch.Generator().manual_seed(2)
    layer = quantize(transformer, RECIPE).get_submodule(name)
    down, up, x = (torch.randn(shape, generator=generator) for shape in ((4, 128), (128, 4), (5, 128)))
    state = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    transformer.load_lora_adapter(state)
    results = []
    with torch.no_grad():
        for layer.state.finishing in (False, True):
            results.append(transformer.get_submodule(name)(x))
            assert torch.equal(results[-1], layer(x) + nn.functional.linear(nn.functional.linear(x, down), up))
    assert not torch.equal(*results)


def test_a_copy_finishes_by_itself(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    quantize(pipeline.transformer, RECIPE)
    expected = generate(pipeline, STEPS)
    pipeline.transformer = copy.deepcopy(pipeline.transformer)
    assert torch.equal(generate(pipeline, STEPS), expected)


def test_codes_that_no_step_would_add_are_refused(pipeline: Any, transformer: Any) -> None:
    too_wide = dataclasses.replace(RECIPE, finish=dataclasses.replace(RULE, group_size=100))
    with pytest.raises(DvdqError, match=r"blocks\.0\.attn1\.to_q: expected a size"):
        quantize(transformer, too_wide)
    pipeline.transformer = quantize(transformer, RECIPE)
    with pytest.raises(DvdqError, match=r"schedule\.last_high: expected last steps, for finish, got 0"):
        set_ends(pipeline, last_high=0)
    assert DVDQuantConfig("minmax", "W4A8", last_high=1, finish=RULE).recipe.schedule.kind == "constant"
