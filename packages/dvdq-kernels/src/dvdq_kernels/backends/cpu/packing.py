"""Where codes lie: how many bits each takes, and how a part of a row is brought to whole words."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dvdq_reference.spec.layout import is_packed

_CHANNELS = 8
"""Channels of a word of nibbles; no part of a row may end inside one."""


def stored_bits(bits: int) -> int:
    """Bits that a code takes."""
    return 4 if is_packed(bits) else 8


def filled_channels(channels: int, parts: int) -> int:
    """Input channels once each of some parts of a row is filled up to whole words."""
    return parts * (channels // parts + -(channels // parts) % _CHANNELS)


def padded(codes: torch.Tensor, qweight: torch.Tensor, parts: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with parts filled up: activation codes of channels that are not there are zero, and so the weight does not
    matter. Parts of real models are whole.
    """
    width = codes.shape[-1] // parts
    missing = -width % _CHANNELS
    codes = F.pad(codes.reshape(*codes.shape[:-1], parts, width), (0, missing)).flatten(-2)
    if is_packed(bits):
        qweight = torch.stack((qweight & 15, qweight >> 4), dim=-1).flatten(-2)
    qweight = F.pad(qweight.view(qweight.shape[0], parts, width), (0, missing)).flatten(-2)
    return codes, qweight[:, 0::2] | (qweight[:, 1::2] << 4) if is_packed(bits) else qweight
