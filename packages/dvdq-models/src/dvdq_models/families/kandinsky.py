"""Kandinsky 5: blocks of the text alone, which stay, then blocks of the video that attend to it.

Latents are ``[1, frames, height, width, channels]``. Modulation sees one token a step and keeps full activations.
"""

from __future__ import annotations

from operator import floordiv

import torch

from dvdq_models.families.family import USUAL, Caching, Call, Config, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    channels = 2 * config.in_visual_dim + 1 if config.visual_cond else config.in_visual_dim
    device, patches = of.timestep.device, map(floordiv, of.latent, config.patch_size)
    return {
        "hidden_states": of.normal(1, frames, height, width, channels),
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.in_text_dim),
        "timestep": of.timestep,
        "pooled_projections": of.normal(1, config.in_text_dim2),
        "visual_rope_pos": [torch.arange(length, device=device) for length in patches],
        "text_rope_pos": torch.arange(of.text_tokens, device=device),
    }


def text_blocks(config: Config) -> int:
    """Of the text alone."""
    return int(config["num_text_blocks"])


def video_blocks(config: Config) -> int:
    """Of the video."""
    return int(config["num_visual_blocks"])


ATTENTION = r"to_(query|key|value)|out_layer"

KANDINSKY_5 = Family(
    name="kandinsky-5",
    classes=("Kandinsky5Transformer3DModel",),
    rules=(
        Rule(
            rf"visual_transformer_blocks\.\d+\.(self|cross)_attention\.({ATTENTION})",
            "quantize",
            lambda config: 8 * video_blocks(config),
        ),
        Rule(
            r"visual_transformer_blocks\.\d+\.feed_forward\.(in|out)_layer",
            "quantize",
            lambda config: 2 * video_blocks(config),
        ),
        Rule(r"visual_transformer_blocks\.\d+\.visual_modulation\.out_layer", "weight-only", video_blocks),
        Rule(
            rf"text_transformer_blocks\.\d+\.(self_attention\.({ATTENTION})|feed_forward\.(in|out)_layer|text_modulation\.out_layer)",
            "keep",
            lambda config: 7 * text_blocks(config),
        ),
        Rule(
            r"time_embeddings\.(in|out)_layer|(text|pooled_text|visual)_embeddings\.in_layer|out_layer\.(modulation\.)?out_layer",
            "keep",
            lambda _: 7,
        ),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    teacache={
        "Kandinsky5Transformer3DModel": Caching(
            ("visual_transformer_blocks",), {"timestep": lambda _, argument: argument("time_embed")}, ("visual_embed",)
        )
    },
    pipelines={
        "Kandinsky5T2VPipeline": Call(24, USUAL, prompt_alone=False),
        "Kandinsky5I2VPipeline": Call(24, USUAL | {"image": "image"}, prompt_alone=False),
    },
)
