"""HunyuanVideo, text- and image-to-video, and Framepack: blocks of two streams, then of one.

A quarter of the parameters only modulate. Such a linear sees one token a video, so its weight is what costs: it keeps
full activations (W4A16). The token refiner inside ``context_embedder`` sees the text alone and stays, as do the
embedders and the last projection. How an image conditions the video (``image_condition_type``) changes no linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dvdq_models.families.family import TWO_STREAMS, USUAL, Caching, Call, Example, Family, Inputs, Rule

IMAGE_TOKENS = 729
"""Of SigLIP, for the first frame."""
_HISTORY = {"clean": 2, "history_2x": 2, "history_4x": 16}


def _inputs(of: Example) -> Inputs:
    text = of.normal(1, of.text_tokens, of.config.text_embed_dim)
    inputs = {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": text,
        "encoder_attention_mask": text.new_ones(1, of.text_tokens, device=of.known),
        "pooled_projections": of.normal(1, of.config.pooled_projection_dim),
    }
    if of.config.guidance_embeds:
        inputs["guidance"] = text.new_full((1,), 6000.0)
    return inputs if of.config.get("has_image_proj") is None else inputs | _framepack(of)


def _framepack(of: Example) -> Inputs:
    """Beside the chunk that is denoised: frames before it, the further back the more of them in a token."""
    config, (frames, height, width), device = of.config, of.latent, of.timestep.device
    inputs = {
        "image_embeds": of.normal(1, IMAGE_TOKENS, config.image_proj_dim),
        "indices_latents": torch.arange(frames, device=device),
    }
    for name, count in _HISTORY.items():
        inputs[f"latents_{name}"] = of.normal(1, config.in_channels, count, height, width)
        inputs[f"indices_latents_{name}"] = torch.arange(count, device=device)
    return inputs


def _modulated(block: Any, argument: Callable[[str], Any]) -> torch.Tensor:
    """What the first block normalizes and modulates of the latents, as TeaCache's authors take it."""
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTokenReplaceAdaLayerNormZero

    inputs = {"emb": argument("temb")}
    if isinstance(block.norm1, HunyuanVideoTokenReplaceAdaLayerNormZero):
        inputs["token_replace_emb"] = argument("token_replace_emb")
        inputs["first_frame_num_tokens"] = argument("num_tokens")
    modulated: torch.Tensor = block.norm1(argument("hidden_states"), **inputs)[0]
    return modulated


_CALL = USUAL | {"guidance": "true_cfg_scale", "embedded_guidance": "guidance_scale"}

TWO_STREAM_BLOCKS = (
    Rule(
        r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0|add_out)|add_(q|k|v)_proj)",
        "quantize",
        lambda config: 8 * config["num_layers"],
    ),
    Rule(
        r"transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)",
        "quantize",
        lambda config: 4 * config["num_layers"],
    ),
    Rule(r"transformer_blocks\.\d+\.norm1(_context)?\.linear", "weight-only", lambda config: 2 * config["num_layers"]),
)
"""Of latents and text, each with a modulation of its own: every model of this kind has their names."""
ONE_STREAM_BLOCKS = (
    Rule(
        r"single_transformer_blocks\.\d+\.(attn\.to_(q|k|v)|proj_mlp|proj_out)",
        "quantize",
        lambda config: 5 * config["num_single_layers"],
    ),
    Rule(r"single_transformer_blocks\.\d+\.norm\.linear", "weight-only", lambda config: config["num_single_layers"]),
)
"""Of latents and text in one sequence."""
TOKEN_REFINER = (
    Rule(
        r"context_embedder\.token_refiner\.refiner_blocks\.\d+\.(attn\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|norm_out\.linear)",
        "keep",
        lambda config: 7 * config["num_refiner_layers"],
    ),
    Rule(r"context_embedder\.(proj_in|time_text_embed\.\w+\.linear_[12])", "keep", lambda _: 5),
)
"""Of the text, before the blocks."""

HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    classes=("HunyuanVideoTransformer3DModel", "HunyuanVideoFramepackTransformer3DModel"),
    rules=(
        *TWO_STREAM_BLOCKS,
        *ONE_STREAM_BLOCKS,
        *TOKEN_REFINER,
        Rule(
            r"time_text_embed\.(timestep|text|guidance)_embedder\.linear_[12]",
            "keep",
            lambda config: 6 if config["guidance_embeds"] else 4,
        ),
        Rule(r"image_projection\.(up|down)", "keep", lambda config: 2 if config.get("has_image_proj") else 0),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
    ),
    inputs=_inputs,
    prompt_tokens=256,
    passes=1,
    pipelines={
        "HunyuanVideoPipeline": Call(24, _CALL, prompt_alone=False),
        "HunyuanVideoImageToVideoPipeline": Call(24, _CALL | {"image": "image"}, prompt_alone=False),
        "HunyuanSkyreelsImageToVideoPipeline": Call(24, _CALL | {"image": "image"}, prompt_alone=False),
        "HunyuanVideoFramepackPipeline": Call(30, _CALL | {"image": "image"}, prompt_alone=False),
    },
    teacache=dict.fromkeys(
        ("HunyuanVideoTransformer3DModel", "HunyuanVideoFramepackTransformer3DModel"),
        Caching(("transformer_blocks", "single_transformer_blocks"), {"modulated-input": _modulated}, TWO_STREAMS),
    ),
    originals=("hunyuan-video",),
)
