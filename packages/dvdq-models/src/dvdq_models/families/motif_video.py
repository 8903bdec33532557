"""Motif-Video: HunyuanVideo's blocks of two streams, then of one, and in some a cross attention to the text.

Modulation keeps full activations, as in HunyuanVideo.
"""

from __future__ import annotations

from dvdq_models.families.family import Call, Config, Example, Family, Inputs, Rule
from dvdq_models.families.hunyuan_video import IMAGE_TOKENS, ONE_STREAM_BLOCKS, TWO_STREAM_BLOCKS


def _crossing(config: Config) -> int:
    """Blocks that attend to the text once more; decoder blocks have no text."""
    double = config["num_layers"] if config["enable_text_cross_attention_dual"] else 0
    encoders = config["num_single_layers"] - config["num_decoder_layers"]
    return int(double + (encoders if config["enable_text_cross_attention_single"] else 0))


def _inputs(of: Example) -> Inputs:
    text = of.normal(1, of.text_tokens, of.config.text_embed_dim)
    inputs: Inputs = {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": text,
        "encoder_attention_mask": text.new_ones(1, of.text_tokens),
    }
    if of.config.image_embed_dim is not None:
        inputs["image_embeds"] = of.normal(1, IMAGE_TOKENS, of.config.image_embed_dim)
    return inputs


_CALL = {
    "negative_prompt": "negative_prompt",
    "height": "height",
    "width": "width",
    "frames": "num_frames",
    "steps": "num_inference_steps",
    "text_tokens": "max_sequence_length",
}

MOTIF_VIDEO = Family(
    name="motif-video",
    classes=("MotifVideoTransformer3DModel",),
    rules=(
        *TWO_STREAM_BLOCKS,
        *ONE_STREAM_BLOCKS,
        Rule(
            r"(single_)?transformer_blocks\.\d+\.cross_attn\.to_(q|k|v|out\.0)",
            "quantize",
            lambda config: 4 * _crossing(config),
        ),
        Rule(r"context_embedder\.linear_[12]|time_text_embed\.timestep_embedder\.linear_[12]", "keep", lambda _: 4),
        Rule(r"image_embedder\.linear_[12]", "keep", lambda config: 2 if config["image_embed_dim"] is not None else 0),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    teacache={"MotifVideoTransformer3DModel": "its last blocks read what those before them made of the latents"},
    pipelines={
        "MotifVideoPipeline": Call(24, _CALL),
        "MotifVideoImage2VideoPipeline": Call(24, _CALL | {"image": "image"}),
    },
)
