"""HunyuanVideo 1.5, text- and image-to-video: blocks of two streams alone, and guidance in two passes.

A third of the parameters only modulate, one token a step: they keep full activations. Embedders of both texts and of
the image, and the token refiner, stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dvdq_models.families.family import (
    TWO_STREAMS,
    Caching,
    Call,
    Example,
    Family,
    Halves,
    Inputs,
    OriginalNames,
    Rule,
)
from dvdq_models.families.hunyuan_video import (
    DOUBLE_BLOCKS,
    IMAGE_TOKENS,
    REFINED_TEXT,
    TOKEN_REFINER,
    TWO_STREAM_BLOCKS,
)

GLYPH_TOKENS = 256
"""Of ByT5, for text to be shown."""


def _inputs(of: Example) -> Inputs:
    config = of.config
    text = of.normal(1, of.text_tokens, config.text_embed_dim)
    return {
        "hidden_states": of.normal(1, config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": text,
        "encoder_attention_mask": text.new_ones(1, of.text_tokens, device=of.known),
        "encoder_hidden_states_2": of.normal(1, GLYPH_TOKENS, config.text_embed_2_dim),
        "encoder_attention_mask_2": text.new_ones(1, GLYPH_TOKENS, device=of.known),
        "image_embeds": of.normal(1, IMAGE_TOKENS, config.image_embed_dim, device=of.known),
    }


def _modulated(block: Any, argument: Callable[[str], Any]) -> torch.Tensor:
    """What the first block normalizes and modulates of the latents, as in HunyuanVideo."""
    modulated: torch.Tensor = block.norm1(argument("hidden_states"), emb=argument("temb"))[0]
    return modulated


_ORIGINAL_NAMES: OriginalNames = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_embed.timestep_embedder.linear_2",
    "time_r_in.mlp.0": "time_embed.timestep_embedder_r.linear_1",
    "time_r_in.mlp.2": "time_embed.timestep_embedder_r.linear_2",
    "cond_type_embedding": "cond_type_embed",
    "byt5_in.layernorm": "context_embedder_2.norm",
    "byt5_in.fc1": "context_embedder_2.linear_1",
    "byt5_in.fc2": "context_embedder_2.linear_2",
    "byt5_in.fc3": "context_embedder_2.linear_3",
    "vision_in.proj.0": "image_embedder.norm_in",
    "vision_in.proj.1": "image_embedder.linear_1",
    "vision_in.proj.3": "image_embedder.linear_2",
    "vision_in.proj.4": "image_embedder.norm_out",
    **REFINED_TEXT,
    **DOUBLE_BLOCKS,
    "final_layer.adaLN_modulation.1": Halves("norm_out.linear"),
    "final_layer.linear": "proj_out",
}
"""Its authors keep queries, keys and values apart; ComfyUI has one linear for the three, as of HunyuanVideo."""

_CALL = {"negative_prompt": "negative_prompt", "frames": "num_frames", "steps": "num_inference_steps"}

HUNYUAN_VIDEO_15 = Family(
    name="hunyuan-video-1.5",
    classes=("HunyuanVideo15Transformer3DModel",),
    rules=(
        *TWO_STREAM_BLOCKS,
        *TOKEN_REFINER,
        Rule(r"context_embedder_2\.linear_[123]|image_embedder\.linear_[12]", "keep", lambda _: 5),
        Rule(
            r"time_embed\.timestep_embedder(_r)?\.linear_[12]",
            "keep",
            lambda config: 4 if config["use_meanflow"] else 2,
        ),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
    ),
    inputs=_inputs,
    prompt_tokens=1000,
    compression=(4, 16),
    teacache={
        "HunyuanVideo15Transformer3DModel": Caching(
            ("transformer_blocks",), {"modulated-input": _modulated}, TWO_STREAMS
        )
    },
    original_names={"HunyuanVideo15Transformer3DModel": _ORIGINAL_NAMES},
    pipelines={
        "HunyuanVideo15Pipeline": Call(24, _CALL | {"height": "height", "width": "width"}, prompt_alone=False),
        "HunyuanVideo15ImageToVideoPipeline": Call(24, _CALL | {"image": "image"}, prompt_alone=False),
    },
)
