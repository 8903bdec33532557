"""MiniMax-H3: video, sound and text in one sequence, each with a modulation of its own.

``adaln_proj`` is 39 % of the parameters and sees one token for each time step of the sequence: full activations. The
token refiner sees the text alone and stays.
"""

from __future__ import annotations

from math import prod

import torch

from dvdq_models.families.family import Example, Family, Inputs, Rule

_SOUND = 32
"""Tokens of sound in an example, few beside a video's."""


def _inputs(of: Example) -> Inputs:
    config = of.config
    patches = prod(size // patch for size, patch in zip(of.latent, config.patch_size, strict=True))
    counts = (patches, of.text_tokens, _SOUND)
    total, device = sum(counts), of.timestep.device
    video, text, sound = torch.arange(total, device=device).split(counts)
    tags = torch.cat([torch.full((count,), tag, device=device) for tag, count in enumerate(counts)])
    return {
        "hidden_states": of.normal(1, patches, config.in_channels * prod(config.patch_size)),
        "audio_hidden_states": of.normal(1, _SOUND, config.audio_in_channels),
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.text_dim),
        "timestep": of.timestep / 1000,
        "timestep_indices": torch.zeros(total, dtype=torch.long, device=device),
        "token_tags": tags,
        "position_ids": torch.zeros(total, 3, device=device),
        "video_indices": video,
        "audio_indices": sound,
        "text_indices": text,
    }


MINIMAX_H3 = Family(
    name="minimax-h3",
    classes=("MiniMaxH3Transformer3DModel",),
    rules=(
        Rule(r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)", "quantize", lambda config: 4 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"transformer_blocks\.\d+\.adaln_proj\.linear", "weight-only", lambda config: config["num_layers"]),
        Rule(
            r"token_refiner\.refiner_blocks\.\d+\.(attn\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))",
            "keep",
            lambda config: 6 * config["num_refiner_layers"],
        ),
        Rule(
            r"(audio_)?proj_(in|out)|context_embedder|time_embedder\.linear_[12]|norm_out\.linear", "keep", lambda _: 8
        ),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    teacache={"MiniMaxH3Transformer3DModel": "its pipeline is modular, and does not say where its loop is"},
)
