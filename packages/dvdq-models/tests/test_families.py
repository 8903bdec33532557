"""The rule tables against the published configurations, on the meta device."""

from __future__ import annotations

import copy
import inspect
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

from dvdq_kernels import dequantize
from dvdq_kernels.functions import rotate
from dvdq_models import Recipe, quantize
from dvdq_models.families import NOT_COVERED, call_of, classes, families, family_of
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.families.family import OPTIONS
from dvdq_models.families.pipelines import PipelineFolder
from dvdq_models.inspecting.sizes import describe
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.oracle import bounds
from dvdq_reference.spec.errors import DvdqError

PUBLISHED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "published.json").read_text())
"""Configurations that people bring, where they differ from the defaults of their class, and what becomes of each."""


def quantized_shapes(transformer: Any) -> Iterator[tuple[int, int, int]]:
    """How many linears of which shape ``(count, out, in)`` lose their weight.

    Of the two families of the paper from the architecture alone, of the others from the tensors of the chosen linears.
    """
    config, family = transformer.config, family_of(transformer)
    if family.name not in ("wan", "hunyuan-video"):
        weights = transformer.state_dict()
        for name, treatment in family.treatments(transformer).items():
            if treatment != "keep":
                yield 1, *weights[f"{name}.weight"].shape
        return
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if "ffn_dim" in config:
        vace = len(config.get("vace_layers", ()))
        blocks = config["num_layers"] + vace
        yield blocks * (8 if config["added_kv_proj_dim"] is None else 10) + vace, width, width
        yield blocks, config["ffn_dim"], width
        yield blocks, width, config["ffn_dim"]
    else:
        double, single, mlp = config["num_layers"], config["num_single_layers"], int(config["mlp_ratio"] * width)
        yield 8 * double + 3 * single, width, width
        yield 2 * double + single, mlp, width
        yield 2 * double, width, mlp
        yield single, width, width + mlp
        yield 2 * double, 6 * width, width
        yield single, 3 * width, width


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model["name"])
def test_every_published_configuration(model: dict[str, Any]) -> None:
    with torch.device("meta"):
        transformer = getattr(diffusers, model["config"]["_class_name"]).from_config(model["config"])
    report = describe(transformer, Recipe.named("dvd-quant", "W4A6"))
    treatments = Counter(layer.treatment for layer in report.layers)
    assert treatments == Counter(
        {"quantize": model["quantize"], "weight-only": model["weight_only"], "keep": model["keep"]}
    )
    assert report.parameters == model["parameters"] == sum(p.numel() for p in transformer.parameters())
    assert (report.bytes_before, report.bytes_after) == (model["bytes_before"], model["bytes_after"])
    # Half a byte instead of two a weight, and six bytes of scale and zero-point a row.
    saved = sum(n * (out * cols * 3 // 2 - 6 * out) for n, out, cols in quantized_shapes(transformer))
    assert report.bytes_before - report.bytes_after == saved
    assert report.reduction >= {"hunyuan-video": 3.6, "wan": 3.7}.get(report.family, 3.4)


def output_error(transformer: Any, run: Any, bits: str) -> float:
    full = run(transformer)
    quantized = run(quantize(transformer, Recipe.named("dvd-quant", bits)))
    return float((quantized - full).norm() / full.norm())


def test_fewer_bits_move_a_hunyuan_video_further(hunyuan_transformer: Any, call_hunyuan: Any) -> None:
    eight, four = (output_error(copy.deepcopy(hunyuan_transformer), call_hunyuan, bits) for bits in ("W4A8", "W4A4"))
    assert 0.0 < eight < four


def test_modulation_is_the_product_with_the_decoded_weight(hunyuan_transformer: Any) -> None:
    quantize(hunyuan_transformer, Recipe.named("dvd-quant", "W4A4"))
    weight_only = [m for m in hunyuan_transformer.modules() if isinstance(m, QuantizedLinear) and m.activation is None]
    assert len(weight_only) == 3
    x = torch.randn(1, 128, generator=torch.Generator().manual_seed(0))
    for layer in weight_only:
        assert layer.rotation is not None
        exact = [t.detach().double() for t in (rotate(x, layer.rotation), dequantize(layer.quantized), layer.bias)]
        # In float32: a product and an addition a channel, Δ, and the bias.
        allowed = bounds.gamma(128 + 2) * nn.functional.linear(*(t.abs() for t in exact))
        assert ((layer(x).double() - nn.functional.linear(*exact)).abs() <= allowed).all()


def test_counts_follow_the_configuration() -> None:
    with torch.device("meta"):
        transformer = diffusers.WanVACETransformer3DModel(num_layers=4, vace_layers=[0, 2], image_dim=8)
    transformer.register_to_config(vace_layers=[0, 1, 2])
    with pytest.raises(DvdqError, match="expected 56 linears, got 48"):
        family_of(transformer).treatments(transformer)


def test_a_linear_that_nobody_matched_is_named(transformer: Any) -> None:
    transformer.blocks[1].attn1.surprise = nn.Linear(4, 4)
    with pytest.raises(DvdqError, match=r"blocks\.1\.attn1\.surprise: expected exactly one matching rule, got none"):
        family_of(transformer).treatments(transformer)


def test_a_linear_that_is_missing_is_counted(transformer: Any) -> None:
    transformer.blocks[0].ffn.net[2] = nn.Identity()
    with pytest.raises(DvdqError, match="expected 4 linears, got 3"):
        family_of(transformer).treatments(transformer)


def test_an_unknown_class_is_named_beside_the_known() -> None:
    with pytest.raises(DvdqError, match=r"WanTransformer3DModel, .*got Linear"):
        family_of(nn.Linear(2, 2))


def test_every_other_transformer_of_diffusers_is_refused_in_one_sentence(tmp_path: Path) -> None:
    named = [name for name in dir(diffusers) if "Transformer" in name and name.endswith("Model")]
    others = sorted(set(named) - set(classes()))
    assert {*NOT_COVERED, "FluxTransformer2DModel"} <= set(others)
    for name in others:
        (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
        said = f"{name}: {NOT_COVERED[name]}" if name in NOT_COVERED else name
        with pytest.raises(DvdqError, match=rf"_class_name: expected .* covered \(Wan.*\), got {said}$"):
            empty_transformer(tmp_path / "config.json")


def test_options_set_arguments_that_the_pipelines_have() -> None:
    for name, call in ((name, call) for family in families() for name, call in family.pipelines.items()):
        arguments = inspect.signature(getattr(diffusers, name).__call__).parameters
        assert set(call.names) <= set(OPTIONS), name
        assert set(call.names.values()) <= set(arguments), name
        required = {key for key, argument in arguments.items() if argument.default is inspect.Parameter.empty}
        assert call.needs or required <= {"self", "prompt", "image"}, name


def test_videos_are_as_fast_as_the_call_tells_the_transformer() -> None:
    names = [name for family in families() for name in family.pipelines]
    calls = {name: inspect.signature(getattr(diffusers, name).__call__).parameters for name in names}
    told = {name: call[rate].default for name, call in calls.items() for rate in ("fps", "frame_rate") if rate in call}
    assert len(told) >= 10
    assert {name: call_of("test", name).fps_of({}) for name in told} == told


def test_models_of_one_pipeline_have_rates_of_their_own(tmp_path: Path) -> None:
    """Wan 2.2 TI2V 5B at 24 (wan/configs/wan_ti2v_5B.py), CogVideoX 1.5 at 16 (inference/cli_demo.py)."""
    (tmp_path / "transformer").mkdir()
    for pipeline, config, rate in (
        ("WanPipeline", {"in_channels": 16}, 16),
        ("WanPipeline", {"in_channels": 48}, 24),
        ("CogVideoXPipeline", {"patch_size_t": None}, 8),
        ("CogVideoXPipeline", {"patch_size_t": 2}, 16),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        (tmp_path / "transformer/config.json").write_text(json.dumps(config))
        assert PipelineFolder.open("read", tmp_path).fps == rate


@pytest.mark.parametrize("name", [None, 7, ["WanPipeline"], {"of": "WanPipeline"}, "SomebodysPipeline"])
def test_an_index_may_name_anything_as_its_class(name: Any, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    folder = PipelineFolder.open("read", tmp_path)
    with pytest.raises(DvdqError, match=r"read: .*model_index\.json: _class_name: expected a class of the installed"):
        folder.check_classes()
    with pytest.raises(DvdqError, match=r"read: .*model_index\.json: expected one of WanPipeline, "):
        _ = folder.fps
