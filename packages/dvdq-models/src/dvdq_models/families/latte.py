"""Latte: blocks of each frame by itself and blocks of each place over time, in turns, modulated by ``adaln_single``."""

from __future__ import annotations

from dvdq_models.families.family import Call, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    return {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": of.normal(1, of.text_tokens, of.config.caption_channels),
    }


LATTE = Family(
    name="latte",
    classes=("LatteTransformer3DModel",),
    rules=(
        Rule(
            r"transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]
        ),
        Rule(
            r"temporal_transformer_blocks\.\d+\.attn1\.to_(q|k|v|out\.0)",
            "quantize",
            lambda config: 4 * config["num_layers"],
        ),
        Rule(
            r"(temporal_)?transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)",
            "quantize",
            lambda config: 4 * config["num_layers"],
        ),
        Rule(r"adaln_single\.(emb\.timestep_embedder\.linear_[12]|linear)", "keep", lambda _: 3),
        Rule(r"caption_projection\.linear_[12]|proj_out", "keep", lambda _: 3),
    ),
    inputs=_inputs,
    prompt_tokens=120,
    compression=(1, 8),
    teacache={"LatteTransformer3DModel": "its blocks take frames and places in turns, each other tensors"},
    pipelines={
        "LattePipeline": Call(
            8,
            {
                "negative_prompt": "negative_prompt",
                "height": "height",
                "width": "width",
                "frames": "video_length",
                "steps": "num_inference_steps",
                "guidance": "guidance_scale",
            },
        )
    },
)
