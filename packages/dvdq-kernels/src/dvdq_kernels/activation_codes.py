"""Activation codes of up to 4 bits two a byte, as INT4 tensor cores multiply them: the even channel low.

A nibble is the two's complement of its code, ``v & 15``.
"""

from __future__ import annotations

import torch


def is_packable(in_features: int, bits: int) -> bool:
    """Whether codes of this width can lie two a byte."""
    return bits <= 4 and in_features % 2 == 0


def pack_codes(values: torch.Tensor) -> torch.Tensor:
    """int8 ``[..., in]`` of -8 … 7 to uint8 ``[..., in / 2]``."""
    nibbles = values.view(torch.uint8)
    return (nibbles[..., 1::2] << 4) | (nibbles[..., 0::2] & 15)


def unpack_codes(codes: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`pack_codes`."""
    # Arithmetic shifts extend the sign.
    return torch.stack(((codes << 4).view(torch.int8) >> 4, codes.view(torch.int8) >> 4), dim=-1).flatten(-2)
