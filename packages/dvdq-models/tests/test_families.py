"""The rule tables against the real configurations, on the meta device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from torch import nn

from dvdq_models import Recipe, quantize
from dvdq_models.families import family_of
from dvdq_reference.spec.errors import DvdqError

WAN_1_3B = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
WAN_14B = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40}


@pytest.mark.parametrize(
    ("config", "linears", "quantized", "billions"),
    [(WAN_1_3B, 306, 300, 1.419), (WAN_14B, 406, 400, 14.288)],
    ids=["1.3B", "14B"],
)
def test_wan_counts(config: dict[str, Any], linears: int, quantized: int, billions: float) -> None:
    with torch.device("meta"):
        transformer = WanTransformer3DModel(**config)
    treatments = family_of(transformer).treatments(transformer)
    assert len(treatments) == linears
    assert Counter(treatments.values()) == {"quantize": quantized, "keep": linears - quantized}
    assert round(sum(p.numel() for p in transformer.parameters()) / 1e9, 3) == billions


def test_hunyuan_video_counts() -> None:
    with torch.device("meta"):
        transformer = HunyuanVideoTransformer3DModel()
    treatments = family_of(transformer).treatments(transformer)
    assert Counter(treatments.values()) == {"quantize": 440, "weight-only": 80, "keep": 27}
    assert round(sum(p.numel() for p in transformer.parameters()) / 1e9, 3) == 12.821


def test_a_hunyuan_video_quantized_to_eight_bits_stays_near(hunyuan_transformer: Any, call_hunyuan: Any) -> None:
    full = call_hunyuan(hunyuan_transformer)
    quantized = call_hunyuan(quantize(hunyuan_transformer, Recipe.named("dvd-quant", "W4A8")))
    assert (quantized - full).norm() < 0.5 * full.norm()


def test_a_linear_that_nobody_matched_is_named(transformer: Any) -> None:
    transformer.blocks[1].attn1.surprise = nn.Linear(4, 4)
    with pytest.raises(DvdqError, match=r"blocks\.1\.attn1\.surprise: expected exactly one matching rule, got none"):
        family_of(transformer).treatments(transformer)


def test_a_linear_that_is_missing_is_counted(transformer: Any) -> None:
    transformer.blocks[0].ffn.net[2] = nn.Identity()
    with pytest.raises(DvdqError, match="expected 4 linears, got 3"):
        family_of(transformer).treatments(transformer)


def test_an_unknown_class_is_named_beside_the_known() -> None:
    with pytest.raises(DvdqError, match="WanTransformer3DModel, .*got Linear"):
        family_of(nn.Linear(2, 2))
