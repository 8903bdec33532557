"""CogVideoX 2B, 5B and 1.5, text-, image- and video-to-video: text and video in one stream; and ConsisID.

A fifth of the parameters modulates, one token a step: full activations. ConsisID's video attends to a face besides,
after every other block: integers. What reads the face before that stays. Latents are
``[1, frames, channels, height, width]``.
"""

from __future__ import annotations

from dvdq_models.families.family import (
    TWO_STREAMS,
    USUAL,
    Caching,
    Call,
    Config,
    Example,
    Family,
    Inputs,
    Rule,
    modulation,
)

FACE_TOKENS = 577
"""Of the face in the picture, by EVA-CLIP: 24 x 24 patches and the class token."""


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
    if config.get("is_train_face"):
        inputs["id_cond"] = of.normal(1, config.LFE_id_dim)
        inputs["id_vit_hidden"] = [of.normal(1, FACE_TOKENS, config.LFE_vit_dim) for _ in range(config.LFE_num_scale)]
    return inputs


def _faces(config: Config) -> int:
    """Attentions to a face."""
    return config["num_layers"] // config["cross_attn_interval"] if config.get("is_train_face") else 0


def _face_readers(config: Config) -> int:
    """Linears of what reads the face: in layers, for each scale of its features, and for its identity."""
    return 5 * config["LFE_depth"] + 3 * config["LFE_num_scale"] + 3 if config.get("is_train_face") else 0


def _fps(config: Config) -> int:
    """Of the makers' ``inference/cli_demo.py``: 16 from 1.5 on, whose patches span frames, and 8 before."""
    return 8 if config.get("patch_size_t") is None else 16


COGVIDEOX = Family(
    name="cogvideox",
    classes=("CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"),
    rules=(
        Rule(r"transformer_blocks\.\d+\.attn1\.to_(q|k|v|out\.0)", "quantize", lambda config: 4 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.norm[12]\.linear", "weight-only", lambda config: 2 * config["num_layers"]),
        # From 1.5 on a patch spans frames too, and is embedded by a linear.
        Rule(
            r"patch_embed\.(text_proj|proj)",
            "keep",
            lambda config: 1 if config.get("patch_size_t") is None else 2,
        ),
        Rule(
            r"(time|ofs)_embedding\.linear_[12]",
            "keep",
            lambda config: 2 if config.get("ofs_embed_dim") is None else 4,
        ),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
        Rule(r"perceiver_cross_attention\.\d+\.to_(q|kv|out)", "quantize", lambda config: 3 * _faces(config)),
        Rule(
            r"local_facial_extractor\.(layers\.\d+\.(0\.to_(q|kv|out)|1\.[13])|(mapping_\d+|id_embedding_mapping)\.[036])",
            "keep",
            _face_readers,
        ),
    ),
    inputs=_inputs,
    prompt_tokens=226,
    teacache={
        "CogVideoXTransformer3DModel": Caching(("transformer_blocks",), {"timestep": modulation}, TWO_STREAMS),
        "ConsisIDTransformer3DModel": "it attends to a face between its blocks",
    },
    pipelines={
        "CogVideoXPipeline": Call(_fps, USUAL),
        "CogVideoXImageToVideoPipeline": Call(_fps, USUAL | {"image": "image"}),
        "CogVideoXVideoToVideoPipeline": Call(_fps, {}, needs="a video"),
        "CogVideoXFunControlPipeline": Call(_fps, {}, needs="a control video"),
        "ConsisIDPipeline": Call(_fps, {}, needs="the features of a face"),
    },
)
