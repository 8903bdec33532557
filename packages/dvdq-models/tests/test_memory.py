"""What a forward pass needs, counted on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, quantize
from dvdq_models.cli import app
from dvdq_models.families.example_inputs import example_inputs
from dvdq_models.families.pipelines import latent_size
from dvdq_models.families.wan import WAN
from dvdq_models.inspecting.memory import PeakMemory, forward_peak


def test_the_peak_is_that_of_the_tensors_alive_at_once() -> None:
    known = torch.empty(1000)
    with PeakMemory([known]) as memory:
        a = torch.ones(256)
        b = a + 1.0
        del a
        c = b.view(16, 16)
        del b
        assert memory.live == 4 * 256  # c is a view of the same storage
        d = torch.cat([c.flatten(), torch.zeros(64)])
        assert memory.live == 4 * (256 + 320)
        del c, d
        known.add_(1.0)
    assert memory.live == 0
    assert memory.peak == 4 * (256 + 320 + 64)


@pytest.mark.parametrize("family", ["wan", "hunyuan-video"])
@pytest.mark.parametrize("quantized", [False, True])
def test_the_meta_device_needs_what_a_real_one_needs(request: Any, family: str, quantized: bool) -> None:
    transformer = request.getfixturevalue("transformer" if family == "wan" else "hunyuan_transformer")
    if quantized:
        quantize(transformer, Recipe.named("dvd-quant", "W4A8"))
    latent = (2, 16, 16)
    real = forward_peak(
        transformer, example_inputs(transformer, latent, text_tokens=4, dtype=torch.float32, device="cpu")
    )
    transformer.to("meta")
    assert forward_peak(transformer, example_inputs(transformer, latent, text_tokens=4, dtype=torch.float32)) == real


@pytest.mark.parametrize("family", ["wan", "hunyuan-video"])
def test_inputs_are_what_the_model_takes(request: Any, family: str) -> None:
    transformer = request.getfixturevalue("transformer" if family == "wan" else "hunyuan_transformer")
    inputs = example_inputs(transformer, (2, 8, 8), text_tokens=4, dtype=torch.float32, device="cpu")
    again = example_inputs(transformer, (2, 8, 8), text_tokens=4, dtype=torch.float32, device="cpu")
    assert all(torch.equal(value, again[name]) for name, value in inputs.items())
    with torch.no_grad():
        output = transformer(**inputs, return_dict=False)[0]
    assert output.shape == (1, 8, 2, 8, 8)
    assert bool(output.isfinite().all())


def test_what_is_large_has_a_size_and_no_values() -> None:
    with torch.device("meta"):
        weight = torch.empty(1)
    mask = torch.ones(1 << 16, dtype=torch.bool)
    with PeakMemory([weight]) as memory:
        pairs = mask[:, None] & mask
        assert int(mask.sum()) == 1 << 16
    assert pairs.is_meta
    assert memory.peak >= 1 << 32


def test_what_a_mask_selects_is_as_long_as_it_says() -> None:
    with torch.device("meta"):
        text = torch.empty(4, 8)
    with PeakMemory([text]):
        assert text[torch.tensor([True, False, True, True])].shape == (3, 8)
        with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
            text[0, 0].item()


@pytest.mark.parametrize("model", [WanTransformer3DModel, HunyuanVideoTransformer3DModel])
def test_attention_scores_are_not_counted(model: Any) -> None:
    with torch.device("meta"):
        transformer = model(num_layers=1).to(torch.bfloat16)
    tokens, heads = 21 * 30 * 52, transformer.config.num_attention_heads
    peak = forward_peak(transformer, example_inputs(transformer, (21, 60, 104), text_tokens=256))
    assert peak < 2 * heads * tokens**2  # the scores in 16 bits


def test_inspect_tells_the_memory_of_a_pass(pipeline: Any, pipeline_folder: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(pipeline_folder), "--bits", "W4A4", "--video", "5x32x48", "--json"])
    assert shown.exit_code == 0, shown.output
    transformer = pipeline.transformer
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    quantize(transformer, Recipe.named("dvd-quant", "W4A4"))
    inputs = example_inputs(transformer, (2, 4, 6), text_tokens=512, device="cpu")
    assert json.loads(shown.stdout)["pass_bytes"] == forward_peak(transformer, inputs)
    said = CliRunner().invoke(app, ["inspect", str(pipeline_folder), "--bits", "W4A4", "--video", "5x32x48"])
    assert "one forward pass of 5x32x48 takes" in said.output
    with pytest.raises(DvdqError, match="--video: expected frames x height x width, as 81x480x832, got 480p"):
        CliRunner().invoke(app, ["inspect", str(pipeline_folder), "--video", "480p"], catch_exceptions=False)


def test_latents_are_as_small_as_the_autoencoder_makes_them(tmp_path: Path) -> None:
    assert latent_size(tmp_path, (81, 480, 832), WAN) == (21, 60, 104)
    (tmp_path / "vae").mkdir()
    for names in (
        ("scale_factor_temporal", "scale_factor_spatial"),
        ("temporal_compression_ratio", "spatial_compression_ratio"),
    ):
        (tmp_path / "vae/config.json").write_text(json.dumps(dict(zip(names, (2, 16), strict=True))))
        assert latent_size(tmp_path, (81, 480, 832), WAN) == (41, 30, 52)
