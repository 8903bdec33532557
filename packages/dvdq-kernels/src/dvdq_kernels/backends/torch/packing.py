"""The canonical layout of weight codes: two nibbles a byte up to 4 bits, the even channel low."""

from __future__ import annotations

import torch

from dvdq_reference.spec.layout import is_packed


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 ``[out, in]`` codes to uint8 ``[out, in / 2]``, or as they are above 4 bits."""
    if not is_packed(bits):
        return codes
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack(qweight: torch.Tensor, bits: int, in_features: int) -> torch.Tensor:
    """uint8 ``[out, in]``, the inverse of :func:`pack`."""
    if not is_packed(bits):
        return qweight
    codes = torch.empty((qweight.shape[0], in_features), dtype=torch.uint8, device=qweight.device)
    torch.bitwise_and(qweight, 15, out=codes[:, 0::2])
    torch.bitwise_right_shift(qweight, 4, out=codes[:, 1::2])
    return codes
