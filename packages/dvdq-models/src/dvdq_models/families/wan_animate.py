"""Wan-Animate: a character moved by somebody else's pose and face.

Wan's layers, and a face adapter that attends to the face in every fifth block, as heavy as an attention of the block:
integers. What reads the face before that stays.
"""

from __future__ import annotations

from dvdq_models.families.family import Call, Config, Example, Family, Inputs, Rule
from dvdq_models.families.wan import CLIP_TOKENS


def _adapters(config: Config) -> int:
    return int(config["num_layers"]) // int(config["inject_face_latents_blocks"])


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    # A frame for the reference stands before those of the video, 4 of which are a latent.
    return {
        "hidden_states": of.normal(1, config.in_channels, frames, height, width),
        "timestep": of.timestep,
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.text_dim),
        "encoder_hidden_states_image": of.normal(1, CLIP_TOKENS, config.image_dim),
        "pose_hidden_states": of.normal(1, config.latent_channels, frames - 1, height, width),
        "face_pixel_values": of.normal(
            1, 3, 4 * (frames - 2) + 1, config.motion_encoder_size, config.motion_encoder_size
        ),
    }


WAN_ANIMATE = Family(
    name="wan-animate",
    classes=("WanAnimateTransformer3DModel",),
    rules=(
        Rule(r"blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]),
        Rule(r"blocks\.\d+\.ffn\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(
            r"blocks\.\d+\.attn2\.add_(k|v)_proj",
            "quantize",
            lambda config: 2 * config["num_layers"] if config["added_kv_proj_dim"] is not None else 0,
        ),
        Rule(r"face_adapter\.\d+\.to_(q|k|v|out)", "quantize", lambda config: 4 * _adapters(config)),
        Rule(r"face_encoder\.out_proj", "keep", lambda _: 1),
        Rule(r"condition_embedder\.((time|text)_embedder\.linear_[12]|time_proj)|proj_out", "keep", lambda _: 6),
        Rule(
            r"condition_embedder\.image_embedder\.ff\.net\.(0\.proj|2)",
            "keep",
            lambda config: 2 if config["image_dim"] is not None else 0,
        ),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    passes=1,
    teacache={"WanAnimateTransformer3DModel": "its face adapter adds between its blocks"},
    pipelines={"WanAnimatePipeline": Call(30, {}, needs="videos of a pose and a face")},
)
