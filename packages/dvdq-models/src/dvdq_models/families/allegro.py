"""Allegro: blocks of self- and cross attention under one modulation, ``adaln_single``, for all."""

from __future__ import annotations

from math import prod

from dvdq_models.families.family import USUAL, Caching, Call, Embedding, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    text = of.normal(1, of.text_tokens, config.caption_channels)
    tokens = (frames, height // config.patch_size, width // config.patch_size)
    third = config.attention_head_dim // 3
    grid = text.new_zeros(1, prod(tokens)).long()
    angles = of.timestep.new_zeros(max(tokens), third)
    return {
        "hidden_states": of.normal(1, config.in_channels, frames, height, width),
        "encoder_hidden_states": text,
        "timestep": of.timestep,
        "attention_mask": text.new_ones(1, frames, height, width),
        "encoder_attention_mask": text.new_ones(1, of.text_tokens),
        "image_rotary_emb": (((angles.cos(), angles.sin()),) * 3, (grid,) * 3),
    }


ALLEGRO = Family(
    name="allegro",
    classes=("AllegroTransformer3DModel",),
    rules=(
        Rule(
            r"transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]
        ),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"adaln_single\.(emb\.timestep_embedder\.linear_[12]|linear)", "keep", lambda _: 3),
        Rule(r"caption_projection\.linear_[12]|proj_out", "keep", lambda _: 3),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    teacache={
        "AllegroTransformer3DModel": Caching(("transformer_blocks",), {"timestep": Embedding("adaln_single", 1)})
    },
    pipelines={"AllegroPipeline": Call(15, USUAL)},
)
