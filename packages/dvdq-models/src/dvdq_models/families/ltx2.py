"""LTX-2, 2.3 and 2.5: a video and a stream of sound beside it, each attending to the other.

Both streams and what joins them are integers. A gate (``to_gate_logits``, in some versions) gives one number a head and
token, and stays, as do embedders and the linears that make the modulation of all blocks.
"""

from __future__ import annotations

from math import prod

import torch

from dvdq_models.families.family import USUAL, Caching, Call, Config, Example, Family, Inputs, Rule, modulation

_STREAM = r"(attn1|attn2|audio_attn1|audio_attn2|audio_to_video_attn|video_to_audio_attn)"
AUDIO_TOKENS_A_SECOND, FPS = 25, 24
"""16,000 samples a second, 160 a frame of the spectrum, 4 of which are a latent."""


def _gates(config: Config) -> int:
    return 3 * int(config["num_layers"]) * (bool(config["gated_attn"]) + bool(config["audio_gated_attn"]))


def _prompt_modulation(config: Config) -> int:
    modulated = config["cross_attn_mod"] or config["audio_cross_attn_mod"]
    return 6 if modulated and config["use_prompt_adaln_single"] else 0


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    sound = max(1, round(((frames - 1) * 8 + 1) / FPS * AUDIO_TOKENS_A_SECOND))
    projected = config["use_prompt_embeddings"]
    text = of.normal(1, of.text_tokens, config.caption_channels if projected else config.cross_attention_dim)
    spoken = of.normal(1, of.text_tokens, config.caption_channels if projected else config.audio_cross_attention_dim)
    return {
        "hidden_states": of.normal(1, prod(of.latent), config.in_channels),
        "audio_hidden_states": of.normal(1, sound, config.audio_in_channels),
        "encoder_hidden_states": text,
        "audio_encoder_hidden_states": spoken,
        "timestep": of.timestep,
        "sigma": of.timestep / 1000,
        "encoder_attention_mask": torch.ones_like(text[..., 0]),
        "audio_encoder_attention_mask": torch.ones_like(spoken[..., 0]),
        "num_frames": frames,
        "height": height,
        "width": width,
        "fps": float(FPS),
        "audio_num_frames": sound,
    }


LTX2 = Family(
    name="ltx-2",
    classes=("LTX2VideoTransformer3DModel",),
    rules=(
        Rule(
            rf"transformer_blocks\.\d+\.{_STREAM}\.to_(q|k|v|out\.0)",
            "quantize",
            lambda config: 24 * config["num_layers"],
        ),
        Rule(
            r"transformer_blocks\.\d+\.(audio_)?ff\.net\.(0\.proj|2)",
            "quantize",
            lambda config: 4 * config["num_layers"],
        ),
        Rule(rf"transformer_blocks\.\d+\.{_STREAM}\.to_gate_logits", "keep", _gates),
        Rule(r"(audio_)?proj_(in|out)", "keep", lambda _: 4),
        Rule(
            r"(audio_)?caption_projection\.linear_[12]",
            "keep",
            lambda config: 4 if config["use_prompt_embeddings"] else 0,
        ),
        Rule(
            r"((audio_)?time_embed|av_cross_attn_(video|audio)_scale_shift|av_cross_attn_(video_a2v|audio_v2a)_gate)"
            r"\.(emb\.timestep_embedder\.linear_[12]|linear)",
            "keep",
            lambda _: 18,
        ),
        Rule(r"(audio_)?prompt_adaln\.(emb\.timestep_embedder\.linear_[12]|linear)", "keep", _prompt_modulation),
    ),
    inputs=_inputs,
    prompt_tokens=1024,
    compression=(8, 32),
    teacache={
        "LTX2VideoTransformer3DModel": Caching(
            ("transformer_blocks",), {"timestep": modulation}, ("hidden_states", "audio_hidden_states")
        )
    },
    pipelines={
        "LTX2Pipeline": Call(FPS, USUAL),
        "LTX2ImageToVideoPipeline": Call(FPS, USUAL | {"image": "image"}),
        "LTX2ConditionPipeline": Call(FPS, USUAL),
    },
)
