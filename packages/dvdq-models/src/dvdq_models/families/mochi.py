"""Mochi 1: a wide stream of the video and a narrow one of the text; the last block drops the text.

A quarter of the parameters modulates, one token a step: full activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dvdq_models.families.family import TWO_STREAMS, USUAL, Caching, Call, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    text = of.normal(1, of.text_tokens, of.config.text_embed_dim)
    return {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "encoder_hidden_states": text,
        "timestep": of.timestep,
        "encoder_attention_mask": text.new_ones(1, of.text_tokens, device=of.known).bool(),
    }


def _modulated(block: Any, argument: Callable[[str], Any]) -> torch.Tensor:
    """What the first block normalizes and modulates of the latents, as TeaCache's authors take it."""
    modulated: torch.Tensor = block.norm1(argument("hidden_states"), argument("temb"))[0]
    return modulated


MOCHI = Family(
    name="mochi",
    classes=("MochiTransformer3DModel",),
    rules=(
        Rule(
            r"transformer_blocks\.\d+\.attn1\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj)",
            "quantize",
            lambda config: 7 * config["num_layers"],
        ),
        Rule(r"transformer_blocks\.\d+\.attn1\.to_add_out", "quantize", lambda config: config["num_layers"] - 1),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(
            r"transformer_blocks\.\d+\.ff_context\.net\.(0\.proj|2)",
            "quantize",
            lambda config: 2 * (config["num_layers"] - 1),
        ),
        Rule(
            r"transformer_blocks\.\d+\.norm1(_context)?\.linear(_1)?",
            "weight-only",
            lambda config: 2 * config["num_layers"],
        ),
        Rule(r"time_embed\.(timestep_embedder\.linear_[12]|pooler\.to_(kv|q|out)|caption_proj)", "keep", lambda _: 6),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
    ),
    inputs=_inputs,
    prompt_tokens=256,
    compression=(6, 8),
    teacache={
        "MochiTransformer3DModel": Caching(("transformer_blocks",), {"modulated-input": _modulated}, TWO_STREAMS)
    },
    pipelines={"MochiPipeline": Call(30, USUAL)},
)
