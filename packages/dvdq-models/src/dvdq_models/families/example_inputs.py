"""Inputs of one forward pass: to count what a pass needs, or to time one, without prompts or pictures."""

from __future__ import annotations

from typing import Any

import torch

from dvdq_models.families import family_of
from dvdq_models.families.family import Example, Inputs, Size


def example_inputs(
    transformer: Any,
    latent: Size,
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
        device: where; "meta" allocates nothing but what a model looks at, such as masks.
        seed: of the values.
    """
    known = torch.device("cpu" if torch.device(device).type == "meta" else device)
    generator = torch.Generator(known).manual_seed(seed)

    def normal(*shape: int, device: torch.device | str = device) -> torch.Tensor:
        drawn = None if torch.device(device).type == "meta" else generator
        return torch.randn(shape, generator=drawn, device=device, dtype=dtype)

    family, time = family_of(transformer), torch.full((1,), 500.0, device=device)
    tokens = text_tokens or family.prompt_tokens
    return family.inputs(Example(transformer.config, latent, tokens, normal, time, known))
