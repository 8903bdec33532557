"""The canonical layout of weight codes: two nibbles a byte up to 4 bits, the even channel low."""

from __future__ import annotations

import torch

from dvdq_kernels.kept import kept
from dvdq_reference.spec.layout import is_packed

_PAIRS = {torch.uint8: torch.int16, torch.float32: torch.int64, torch.float64: torch.complex128}
"""A dtype of codes, and one that is twice as wide."""


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 ``[out, in]`` codes to uint8 ``[out, in / 2]``, or as they are above 4 bits."""
    if not is_packed(bits):
        return codes
    return codes[:, 1::2].bitwise_left_shift(4).bitwise_or_(codes[:, 0::2])


def unpack(qweight: torch.Tensor, bits: int, dtype: torch.dtype = torch.uint8, offset: int = 0) -> torch.Tensor:
    """``q - offset``, a fresh ``[out, in]`` tensor of uint8, float32 or float64: the inverse of :func:`pack`."""
    if not is_packed(bits):
        return qweight.to(dtype, copy=True).sub_(offset)
    # One look-up of a pair a byte: no shifts, masks, conversions and strided writes, each a pass over the weight.
    table = _table(dtype, offset, qweight.device)
    pairs = table.index_select(0, qweight.reshape(-1).to(torch.int32))
    return pairs.view(dtype).view(qweight.shape[0], -1)


@kept
def _table(dtype: torch.dtype, offset: int, device: torch.device) -> torch.Tensor:
    """What each byte stands for, two codes as one number: ``[256]``."""
    byte = torch.arange(256)
    pairs = torch.stack((byte & 15, byte >> 4), dim=1) - offset
    return pairs.to(dtype).view(_PAIRS[dtype]).view(256).to(device)
