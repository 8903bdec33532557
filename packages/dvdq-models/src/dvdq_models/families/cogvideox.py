"""CogVideoX 2B, 5B and 1.5, text-, image- and video-to-video: text and video in one stream.

A fifth of the parameters modulates, one token a step: full activations. Latents are
``[1, frames, channels, height, width]``.
"""

from __future__ import annotations

from dvdq_models.families.family import USUAL, Call, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    inputs: Inputs = {
        "hidden_states": of.normal(1, frames, config.in_channels, height, width),
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.text_embed_dim),
        "timestep": of.timestep,
    }
    if config.get("ofs_embed_dim") is not None:
        inputs["ofs"] = of.timestep.new_full((1,), 2.0)
    if config.use_rotary_positional_embeddings:
        patch_t = config.get("patch_size_t")
        tokens = (frames if patch_t is None else frames // patch_t) * (height // config.patch_size)
        shape = (tokens * (width // config.patch_size), config.attention_head_dim)
        inputs["image_rotary_emb"] = (of.timestep.new_ones(shape), of.timestep.new_zeros(shape))
    return inputs


COGVIDEOX = Family(
    name="cogvideox",
    classes=("CogVideoXTransformer3DModel",),
    rules=(
        Rule(r"transformer_blocks\.\d+\.attn1\.to_(q|k|v|out\.0)", "quantize", lambda config: 4 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.norm[12]\.linear", "weight-only", lambda config: 2 * config["num_layers"]),
        # From 1.5 on a patch spans frames too, and is embedded by a linear.
        Rule(
            r"patch_embed\.(text_proj|proj)",
            "keep",
            lambda config: 1 if config["patch_size_t"] is None else 2,
        ),
        Rule(
            r"(time|ofs)_embedding\.linear_[12]",
            "keep",
            lambda config: 2 if config["ofs_embed_dim"] is None else 4,
        ),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
    ),
    inputs=_inputs,
    prompt_tokens=226,
    pipelines={
        "CogVideoXPipeline": Call(8, USUAL),
        "CogVideoXImageToVideoPipeline": Call(8, USUAL | {"image": "image"}),
        "CogVideoXVideoToVideoPipeline": Call(8, {}, needs="a video"),
        "CogVideoXFunControlPipeline": Call(8, {}, needs="a control video"),
    },
)
