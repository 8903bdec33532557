"""HunyuanVideo, text- and image-to-video, and Framepack: blocks of two streams, then of one.

A quarter of the parameters only modulate. Such a linear sees one token a video, so its weight is what costs: it keeps
full activations (W4A16). The token refiner inside ``context_embedder`` sees the text alone and stays, as do the
embedders and the last projection. How an image conditions the video (``image_condition_type``) changes no linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import silu

from dvdq_models.families.family import (
    TWO_STREAMS,
    USUAL,
    Caching,
    Call,
    Config,
    Example,
    Family,
    Halves,
    Inputs,
    OriginalNames,
    Rule,
)
from dvdq_models.families.moments import Channels, Weights, gelu_tanh, joined, mixed, sinusoids, time_steps

IMAGE_TOKENS = 729
"""Of SigLIP, for the first frame."""
_GUIDANCE = 6000.0
"""A thousand times the scale that its pipelines embed by default."""
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
        inputs["guidance"] = text.new_full((1,), _GUIDANCE)
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


def _moments(weights: Weights, config: Config) -> Iterator[tuple[str, Channels]]:
    normal = Channels.normal(config["num_attention_heads"] * config["attention_head_dim"])
    condition = _embedded(weights, "timestep", time_steps(256))
    condition += _embedded(weights, "text", Channels.normal(config["pooled_projection_dim"]))
    if config["guidance_embeds"]:
        condition += _embedded(weights, "guidance", sinusoids(torch.tensor([_GUIDANCE]), 256))
    condition = condition.through(silu)
    for block in (f"transformer_blocks.{i}" for i in range(config["num_layers"])):
        values = []
        for norm, attending, value, feed_forward in (
            ("norm1", ("to_q", "to_k", "to_v"), "to_v", "ff"),
            ("norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "add_v_proj", "ff_context"),
        ):
            modulation = condition.linear(weights, f"{block}.{norm}.linear")
            shift, scale, _, hidden_shift, hidden_scale, _ = modulation.chunk(6)
            given = normal.modulated(scale, shift)
            yield from ((f"{block}.attn.{name}", given) for name in attending)
            values.append(given.linear(weights, f"{block}.attn.{value}"))
            hidden = normal.modulated(hidden_scale, hidden_shift)
            yield f"{block}.{feed_forward}.net.0.proj", hidden
            hidden = hidden.linear(weights, f"{block}.{feed_forward}.net.0.proj").through(gelu_tanh)
            yield f"{block}.{feed_forward}.net.2", hidden
        # Each stream attends to both.
        yield from ((f"{block}.attn.{name}", mixed(*values)) for name in ("to_out.0", "to_add_out"))
    for block in (f"single_transformer_blocks.{i}" for i in range(config["num_single_layers"])):
        shift, scale, _ = condition.linear(weights, f"{block}.norm.linear").chunk(3)
        given = normal.modulated(scale, shift)
        yield from ((f"{block}.{name}", given) for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
        hidden = given.linear(weights, f"{block}.proj_mlp").through(gelu_tanh)
        yield f"{block}.proj_out", joined(given.linear(weights, f"{block}.attn.to_v"), hidden)


def _embedded(weights: Weights, name: str, given: Channels) -> Channels:
    embedder = f"time_text_embed.{name}_embedder"
    return given.linear(weights, f"{embedder}.linear_1").through(silu).linear(weights, f"{embedder}.linear_2")


REFINED_TEXT: OriginalNames = {
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    **{
        f"txt_in.individual_token_refiner.blocks.{{}}.{theirs}": (
            tuple(f"context_embedder.token_refiner.refiner_blocks.{{}}.{name}" for name in ours)
        )
        for theirs, ours in {
            "norm1": ("norm1",),
            "norm2": ("norm2",),
            "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "self_attn_proj": ("attn.to_out.0",),
            "mlp.fc1": ("ff.net.0.proj",),
            "mlp.fc2": ("ff.net.2",),
            "adaLN_modulation.1": ("norm_out.linear",),
        }.items()
    },
}
"""The original's names of the token refiner and of what feeds it."""
DOUBLE_BLOCKS: OriginalNames = {
    f"double_blocks.{{}}.{theirs}": tuple(f"transformer_blocks.{{}}.{name}" for name in ours)
    for theirs, ours in {
        "img_mod.linear": ("norm1.linear",),
        "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn_q_norm": ("attn.norm_q",),
        "img_attn_k_norm": ("attn.norm_k",),
        "img_attn_proj": ("attn.to_out.0",),
        "img_mlp.fc1": ("ff.net.0.proj",),
        "img_mlp.fc2": ("ff.net.2",),
        "txt_mod.linear": ("norm1_context.linear",),
        "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn_q_norm": ("attn.norm_added_q",),
        "txt_attn_k_norm": ("attn.norm_added_k",),
        "txt_attn_proj": ("attn.to_add_out",),
        "txt_mlp.fc1": ("ff_context.net.0.proj",),
        "txt_mlp.fc2": ("ff_context.net.2",),
    }.items()
}
"""The original's names of the blocks of two streams."""
_ORIGINAL_NAMES: OriginalNames = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    **REFINED_TEXT,
    **DOUBLE_BLOCKS,
    "single_blocks.{}.linear1": (
        "single_transformer_blocks.{}.attn.to_q",
        "single_transformer_blocks.{}.attn.to_k",
        "single_transformer_blocks.{}.attn.to_v",
        "single_transformer_blocks.{}.proj_mlp",
    ),
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.proj_out",
    "single_blocks.{}.q_norm": "single_transformer_blocks.{}.attn.norm_q",
    "single_blocks.{}.k_norm": "single_transformer_blocks.{}.attn.norm_k",
    "single_blocks.{}.modulation.linear": "single_transformer_blocks.{}.norm.linear",
    "final_layer.adaLN_modulation.1": Halves("norm_out.linear"),
    "final_layer.linear": "proj_out",
}

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
    moments=_moments,
    originals=("hunyuan-video",),
    original_names={"HunyuanVideoTransformer3DModel": _ORIGINAL_NAMES},
)
