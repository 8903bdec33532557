"""Smoothing from the model's own weights: moments are the oracle's and those of diffusers' modules, by every way."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from torch.nn.functional import silu

from dvdq_models import DVDQuantConfig, Recipe, load, quantize, save
from dvdq_models.apply import magnitudes_of
from dvdq_models.families.example_inputs import example_inputs
from dvdq_models.families.moments import Channels, gelu_tanh
from dvdq_models.families.wan import WAN
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.moving_shapes.outliers import outlying, scale_outliers_
from dvdq_models.streaming.quantizer import quantize_checkpoint
from dvdq_reference.oracle import moments
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Smoothing

RECIPE = Recipe.named("dvd-quant", "W4A8", smoothing=Smoothing("analytic"))
EPS = 2.0**-24
BFLOAT16 = 2.0**-8
"""What rounding to bfloat16 may change, relative."""


def magnitudes(transformer: Any) -> dict[str, torch.Tensor]:
    return magnitudes_of(transformer, RECIPE, lambda name: transformer.get_parameter(name).data)


def channels(seed: int, count: int, scale: float = 1.0) -> Channels:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(1, count, generator=generator) * scale
    return Channels(mean, torch.rand(1, count, generator=generator) * scale**2)


def pair(given: Channels) -> tuple[Any, Any]:
    return given.mean[0].double().numpy(), given.variance[0].double().numpy()


def test_a_linear_moves_moments_as_the_oracle_says() -> None:
    linear = torch.nn.Linear(48, 20)
    given = channels(0, 48)
    state = linear.state_dict()
    got = given.linear(lambda name: state[name.removeprefix("layer.")], "layer")
    weight, bias = state["weight"].double().numpy(), state["bias"].double().numpy()
    mean, variance = moments.linear_moments(*pair(given), weight, bias)
    # 48 products, their sum and the bias are rounded; a square besides.
    slack = 51 * EPS
    assert (
        np.abs(got.mean[0].numpy() - mean) <= slack * (np.abs(weight) @ np.abs(pair(given)[0]) + np.abs(bias))
    ).all()
    assert (np.abs(got.variance[0].numpy() - variance) <= slack * variance).all()


def test_modulation_moves_moments_as_the_oracle_says() -> None:
    x, scale, shift = (channels(seed, 64) for seed in range(3))
    got = x.modulated(scale, shift)
    mean, variance = moments.modulated_moments(pair(x), pair(scale), pair(shift))
    second = mean**2 + variance
    # A handful of roundings, in a variance that is a difference of second moments.
    assert (np.abs(got.mean[0].numpy() - mean) <= 8 * EPS * np.sqrt(second) * 4).all()
    assert (np.abs(got.variance[0].numpy() - variance) <= 16 * EPS * (second + np.abs(pair(shift)[0]) ** 2 * 4)).all()


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize(("ours", "exact"), [(gelu_tanh, moments.gelu_tanh), (silu, moments.silu)])
def test_an_activation_is_integrated_to_what_bfloat16_tells_apart(ours: Any, exact: Any, scale: float) -> None:
    given = channels(5, 256, scale)
    mean, variance = moments.activation_moments(*pair(given), exact)
    got = given.through(ours)
    # Beside the deviation of x: far on the negative side, both are next to nothing.
    size = np.sqrt(sum(pair(Channels(given.mean.square(), given.variance))))
    found = (got.mean.square() + got.variance).sqrt()[0].numpy()
    assert (np.abs(found - np.sqrt(mean**2 + variance)) <= BFLOAT16 * size).all()


def test_wans_modulation_is_that_of_its_embedder(transformer: Any) -> None:
    steps = (torch.arange(8) + 0.5) * 125
    with torch.no_grad():
        time = transformer.condition_embedder(steps, torch.zeros(8, 1, transformer.config.text_dim))[1]
        shift, scale, _, hidden_shift, hidden_scale, _ = (
            transformer.blocks[1].scale_shift_table + time.unflatten(1, (6, -1))
        ).unbind(1)
    found = magnitudes(transformer)
    for name, a, b in (("attn1.to_k", scale, shift), ("ffn.net.0.proj", hidden_scale, hidden_shift)):
        expected = ((1 + a).square() + b.square()).mean(0).sqrt()
        torch.testing.assert_close(found[f"blocks.1.{name}"], expected, rtol=BFLOAT16, atol=0)


def test_hunyuan_videos_modulation_is_that_of_its_norms(hunyuan_transformer: Any) -> None:
    model, draws = hunyuan_transformer, 4096
    pooled = torch.randn(draws, model.config.pooled_projection_dim, generator=torch.Generator().manual_seed(0))
    norm = model.transformer_blocks[0].norm1
    second = 0.0
    with torch.no_grad():
        for step in (torch.arange(8) + 0.5) * 125:
            guidance = torch.full((draws,), 6000.0) if model.config.guidance_embeds else None
            condition, _ = model.time_text_embed(step.expand(draws), pooled, guidance)
            shift, scale, *_ = norm.linear(silu(condition)).chunk(6, dim=1)
            second = second + ((1 + scale).square() + shift.square()) / 8
    expected, deviation = second.mean(0), second.std(0) / draws**0.5  # type: ignore[attr-defined]
    found = magnitudes(model)["transformer_blocks.0.attn.to_q"].square()
    # What channels share is not in independent channels: a twentieth, beside the error of the draws and a rounding.
    assert (found - expected).abs().le(0.05 * expected + 5 * deviation + 2 * BFLOAT16 * expected).all()


@pytest.mark.parametrize("name", ["wan", "hunyuan-video"])
def test_a_twin_has_the_outliers_that_moments_see_and_computes_the_same(name: str) -> None:
    transformer = BUNDLED[name].load().transformer
    twin = copy.deepcopy(transformer)
    scale_outliers_(twin, 64.0)
    before, after = magnitudes(transformer), magnitudes(twin)
    hidden = 0
    for layer, magnitude in before.items():
        growth = after[layer] / magnitude
        columns = outlying(transformer.config.num_attention_heads * transformer.config.attention_head_dim)
        grown = torch.zeros(growth.shape[0], dtype=torch.bool)
        if layer.endswith("net.2"):
            hidden += 1  # behind a GELU, so not scaled
        else:
            grown[columns] = True
        torch.testing.assert_close(growth[grown], torch.full_like(growth[grown], 64.0), rtol=4 * BFLOAT16, atol=0)
        torch.testing.assert_close(growth[~grown], torch.ones_like(growth[~grown]), rtol=4 * BFLOAT16, atol=0)
    assert 0 < hidden < len(before) / 4
    inputs = example_inputs(transformer, (5, 8, 8), text_tokens=8, dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        x, y = (model(**inputs, return_dict=False)[0] for model in (transformer, twin))
    # Powers of two leave products as they are; sums of 1 and a scale round.
    assert (x - y).norm() <= 1e-5 * x.norm()


def test_every_quantized_layer_of_both_families_is_known(transformer: Any, hunyuan_transformer: Any) -> None:
    for model in (transformer, hunyuan_transformer):
        layers = quantize(copy.deepcopy(model), RECIPE)
        smoothed = {name for name, m in layers.named_modules() if getattr(m, "smoothing", None) is not None}
        assert smoothed == magnitudes(model).keys()


def test_every_way_leads_to_the_same_codes(transformer: Any, tmp_path: Path) -> None:
    transformer.save_pretrained(tmp_path / "full")
    save_file(transformer.state_dict(), tmp_path / "one.safetensors")
    in_memory = quantize(transformer, RECIPE)
    save(in_memory, tmp_path / "saved")
    quantize_checkpoint(tmp_path / "full", tmp_path / "streamed", RECIPE)
    config = DVDQuantConfig(RECIPE)
    full = str(tmp_path / "full")
    on_load = WanTransformer3DModel.from_pretrained(full, quantization_config=config)
    single = WanTransformer3DModel.from_single_file(
        str(tmp_path / "one.safetensors"), config=full, quantization_config=DVDQuantConfig(RECIPE)
    )
    wanted = in_memory.state_dict()
    assert sum(name.endswith(".smoothing") for name in wanted) == 20
    for other in (load(tmp_path / "saved"), load(tmp_path / "streamed"), on_load, single):
        state = other.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


def test_a_family_without_moments_is_named(transformer: Any) -> None:
    family = dataclasses.replace(WAN, moments=None)
    with pytest.raises(DvdqError, match=r"wan.*moments"):
        family.magnitudes(transformer.get_parameter, transformer.config)


def test_statistics_are_refused_where_none_are_needed(transformer: Any) -> None:
    with pytest.raises(DvdqError, match="no calibration"):
        quantize(transformer, RECIPE, channel_maxima={})


def test_weights_that_are_not_finite_are_named(transformer: Any) -> None:
    transformer.condition_embedder.time_proj.bias.data[0] = float("nan")
    with pytest.raises(DvdqError, match="finite"):
        quantize(transformer, RECIPE)
