"""EasyAnimate 5.1: a stream of the video and one of the text through blocks of two streams.

Modulation (``norm1.linear``, ``norm2.linear``) sees one token a step: full activations.
"""

from __future__ import annotations

from dvdq_models.families.family import TWO_STREAMS, Caching, Call, Config, Example, Family, Inputs, Rule, modulation


def _two_streams(config: Config) -> int:
    return min(int(config["mmdit_layers"]), int(config["num_layers"]))


def _inputs(of: Example) -> Inputs:
    return {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": of.normal(1, of.text_tokens, of.config.text_embed_dim),
    }


_CALL = {
    "negative_prompt": "negative_prompt",
    "height": "height",
    "width": "width",
    "frames": "num_frames",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
}

EASYANIMATE = Family(
    name="easyanimate",
    classes=("EasyAnimateTransformer3DModel",),
    rules=(
        Rule(r"transformer_blocks\.\d+\.attn1\.to_(q|k|v|out\.0)", "quantize", lambda config: 4 * config["num_layers"]),
        Rule(
            r"transformer_blocks\.\d+\.attn1\.(add_(q|k|v)_proj|to_add_out)",
            "quantize",
            lambda config: 4 * _two_streams(config),
        ),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.txt_ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * _two_streams(config)),
        Rule(r"transformer_blocks\.\d+\.norm[12]\.linear", "weight-only", lambda config: 2 * config["num_layers"]),
        Rule(r"time_embedding\.linear_[12]|norm_out\.linear|proj_out", "keep", lambda _: 4),
        Rule(r"text_proj(_t5)?(\.1)?", "keep", lambda config: 1 if config["text_embed_dim_t5"] is None else 2),
    ),
    inputs=_inputs,
    prompt_tokens=256,
    teacache={"EasyAnimateTransformer3DModel": Caching(("transformer_blocks",), {"timestep": modulation}, TWO_STREAMS)},
    pipelines={
        "EasyAnimatePipeline": Call(8, _CALL, prompt_alone=False),
        "EasyAnimateInpaintPipeline": Call(8, {}, needs="a video and its mask"),
        "EasyAnimateControlPipeline": Call(8, {}, needs="a control video"),
    },
)
