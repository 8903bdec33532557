"""LTX-Video: one stream, whose modulation is one linear for all blocks and a table in each.

Latents come as tokens, ``[1, tokens, channels]``: 8 frames and 32 x 32 pixels are one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from dvdq_models.families.family import USUAL, Caching, Call, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    text, (frames, height, width) = of.normal(1, of.text_tokens, of.config.caption_channels), of.latent
    return {
        "hidden_states": of.normal(1, prod(of.latent), of.config.in_channels),
        "encoder_hidden_states": text,
        "timestep": of.timestep,
        "encoder_attention_mask": text.new_ones(1, of.text_tokens),
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def _modulated(block: Any, argument: Callable[[str], Any]) -> torch.Tensor:
    """What the first block normalizes, scales and shifts of the latents, as TeaCache's authors take it."""
    hidden_states, temb, table = argument("hidden_states"), argument("temb"), block.scale_shift_table
    shift, scale, *_ = (table + temb.unflatten(-1, table.shape).to(table.device)).unbind(-2)
    modulated: torch.Tensor = block.norm1(hidden_states) * (1 + scale) + shift
    return modulated


LTX = Family(
    name="ltx",
    classes=("LTXVideoTransformer3DModel",),
    rules=(
        Rule(
            r"transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]
        ),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"proj_(in|out)|time_embed\.(emb\.timestep_embedder\.linear_[12]|linear)", "keep", lambda _: 5),
        Rule(r"caption_projection\.linear_[12]", "keep", lambda _: 2),
    ),
    inputs=_inputs,
    prompt_tokens=128,
    compression=(8, 32),
    teacache={
        "LTXVideoTransformer3DModel": Caching(("transformer_blocks",), {"modulated-input": _modulated}),
    },
    pipelines={
        "LTXPipeline": Call(25, USUAL),
        "LTXImageToVideoPipeline": Call(25, USUAL | {"image": "image"}),
        "LTXConditionPipeline": Call(25, USUAL | {"image": "image"}),
    },
)
