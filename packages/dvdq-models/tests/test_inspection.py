"""Sizes computed from a configuration, against sizes on disk and the paper's claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from dvdq_models import DvdqError, Recipe, quantize, save
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.inspection import FULL_PRECISION_BYTES, describe, empty_transformer


def test_bytes_are_those_on_disk(transformer: Any, tmp_path: Path) -> None:
    recipe = Recipe.named("dvd-quant", "W4A8")
    planned = describe(transformer, recipe)
    quantize(transformer.to(torch.bfloat16), recipe)
    done = describe(transformer, recipe)
    tensors = load_file(save(transformer, tmp_path / "q") / f"{WEIGHTS}.safetensors").values()
    assert planned.bytes_after == done.bytes_after == sum(t.numel() * t.element_size() for t in tensors)
    assert planned.bytes_before == done.bytes_before
    assert planned.parameters == done.parameters


def test_a_config_alone_is_enough(tmp_path: Path) -> None:
    with torch.device("meta"):
        config = WanTransformer3DModel(num_layers=40, ffn_dim=13824, num_attention_heads=40).to_json_string()
    (tmp_path / "config.json").write_text(config)
    transformer = empty_transformer(tmp_path)
    assert {p.device.type for p in transformer.parameters()} == {"meta"}
    report = describe(transformer, Recipe.named("dvd-quant"))
    assert report.bytes_before == FULL_PRECISION_BYTES * sum(p.numel() for p in transformer.parameters())
    # 400 linears at 4 bits and 6 bytes a row, everything else at 16 bits.
    quantized = [layer for layer in report.layers if layer.treatment == "quantize"]
    saved = sum(out * cols * 3 // 2 - 6 * out for out, cols in (layer.shape for layer in quantized))
    assert report.bytes_after == report.bytes_before - saved
    assert report.reduction > 3.7


def test_a_folder_without_a_transformer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match=r"expected a config\.json of a transformer"):
        empty_transformer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(DvdqError, match="got AutoencoderKLWan"):
        empty_transformer(tmp_path)
