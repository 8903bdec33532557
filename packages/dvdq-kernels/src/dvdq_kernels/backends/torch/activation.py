"""Rotation and blockwise online quantization of activations (ARQ, Eq. 10)."""

from __future__ import annotations

import torch

from dvdq_kernels.activation_codes import pack_codes
from dvdq_kernels.backends.torch.hadamard import transform
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.clip_factors import limit_of
from dvdq_reference.spec.recipe import Clip

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def rotate_quantize(
    x: torch.Tensor,
    bits: int,
    block: int | None,
    clip: Clip,
    kind: str | None,
    seed: int | None,
    packed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes int8 ``[..., in]`` or packed uint8 ``[..., in / 2]``, scale float32 ``[..., blocks]``, token sum float32
    ``[...]``; computed in float32.
    """
    values = x.to(torch.float32)
    if kind is not None:
        values = transform(values, kind, seed)
    in_features = x.shape[-1]
    width = in_features if block is None else block
    low, high = signed_range(bits)
    blocks = values.reshape(*x.shape[:-1], in_features // width, width)
    if clip == "signed":
        least, greatest = blocks.aminmax(dim=-1)
        largest = torch.where(-least >= greatest, least, greatest)
    else:
        largest = blocks.abs().amax(dim=-1)
    scale = largest / limit_of(clip, bits, width)
    scale = scale.abs().clamp_min_(_SMALLEST_SCALE).copysign_(scale).masked_fill_(largest == 0, 1.0)
    rounded = (blocks / scale.unsqueeze(-1)).round_().clamp_(low, high)
    token_sum = (rounded.sum(dim=-1) * scale).sum(dim=-1)
    codes = rounded.to(torch.int8).view(x.shape)
    return pack_codes(codes) if packed else codes, scale, token_sum
