"""Inputs of one forward pass, by family: to count what a pass needs, or to time one, without prompts or pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dvdq_models.families import family_of

Inputs = dict[str, torch.Tensor]


def example_inputs(
    transformer: Any,
    latent: tuple[int, int, int],
    *,
    text_tokens: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device = "meta",
    seed: int = 0,
) -> Inputs:
    """Keyword arguments of ``transformer`` for one video, Gaussian, at time step 500.

    Args:
        transformer: of a known family; text-to-video, or image-to-video whose image comes beside the latents.
        latent: frames, height and width of the latents, e.g. ``(21, 60, 104)`` for Wan's 81 frames of 480 x 832.
        text_tokens: of the prompt, padded; None is what the family's pipelines give it.
        dtype: of latents and text.
        device: where; "meta" allocates nothing.
        seed: of the values.
    """
    generator = None if str(device) == "meta" else torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    config = transformer.config
    conditions, longest_prompt = _CONDITIONS[family_of(transformer).name]
    time = torch.full((1,), 500.0, device=device)
    return {
        "hidden_states": normal(1, config.in_channels, *latent),
        "timestep": time,
        **conditions(config, normal, text_tokens or longest_prompt),
    }


def _wan(config: Any, normal: Callable[..., torch.Tensor], text_tokens: int) -> Inputs:
    conditions = {"encoder_hidden_states": normal(1, text_tokens, config.text_dim)}
    if config.image_dim is not None:
        conditions["encoder_hidden_states_image"] = normal(1, CLIP_TOKENS, config.image_dim)
    return conditions


def _hunyuan_video(config: Any, normal: Callable[..., torch.Tensor], text_tokens: int) -> Inputs:
    text = normal(1, text_tokens, config.text_embed_dim)
    conditions = {
        "encoder_hidden_states": text,
        "encoder_attention_mask": text.new_ones(1, text_tokens),
        "pooled_projections": normal(1, config.pooled_projection_dim),
    }
    if config.guidance_embeds:
        conditions["guidance"] = text.new_full((1,), 6000.0)
    return conditions


CLIP_TOKENS = 257
"""Of the image that conditions Wan 2.1: 16 x 16 patches and the class token."""

_CONDITIONS = {"wan": (_wan, 512), "hunyuan-video": (_hunyuan_video, 256)}
"""By family: what a transformer takes beside latents and time, and the tokens that its pipelines pad a prompt to."""
