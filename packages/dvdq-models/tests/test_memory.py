"""What a forward pass needs, counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel

from dvdq_models import Recipe, quantize
from dvdq_models.example_inputs import example_inputs
from dvdq_models.memory import PeakMemory, forward_peak


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


@pytest.mark.parametrize("model", [WanTransformer3DModel, HunyuanVideoTransformer3DModel])
def test_attention_scores_are_not_counted(model: Any) -> None:
    with torch.device("meta"):
        transformer = model(num_layers=1).to(torch.bfloat16)
    tokens, heads = 21 * 30 * 52, transformer.config.num_attention_heads
    peak = forward_peak(transformer, example_inputs(transformer, (21, 60, 104), text_tokens=256))
    assert peak < 2 * heads * tokens**2  # the scores in 16 bits
