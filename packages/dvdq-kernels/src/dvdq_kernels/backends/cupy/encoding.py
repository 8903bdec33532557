"""Codes of a stored grid, in the canonical layout, and back (Eq. 1, 2): one pass each, bound by bytes."""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_reference.spec.bits import code_offset, unsigned_range
from dvdq_reference.spec.layout import is_packed, packed_width

_THREADS, _EACH = 256, 4


def encode(weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """Packed codes uint8 of an aligned ``[out, in]`` weight on the contiguous grid ``[out, groups]``."""
    out_features, in_features = weight.shape
    shape = out_features, packed_width("encode", in_features, bits)
    qweight = torch.empty(shape, dtype=torch.uint8, device=weight.device)
    width = in_features // scale.shape[1]
    arguments = weight, scale, zero, qweight, np.int64(weight.numel()), np.int64(width)
    constants = {"WEIGHT": weight.dtype, "PACKED": is_packed(bits), "WHOLE": width % _EACH == 0}
    _launch("encode", (*arguments, np.int32(unsigned_range(bits)[1])), constants, weight.numel())
    return qweight


def decode(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
) -> torch.Tensor:
    """Ŵ float32 ``[out, in]`` of aligned codes and contiguous grids; without zero-points z is ``2^(b-1)``."""
    weight = torch.empty((qweight.shape[0], in_features), dtype=torch.float32, device=qweight.device)
    width = in_features // scale.shape[1]
    arguments = qweight, scale, zero, weight, np.int64(weight.numel()), np.int64(width), np.int32(code_offset(bits))
    _launch("decode", arguments, {"PACKED": is_packed(bits), "WHOLE": width % _EACH == 0}, weight.numel())
    return weight


def _launch(kernel: str, arguments: tuple[object, ...], constants: dict[str, object], size: int) -> None:
    grid = -(-size // (_THREADS * _EACH))
    launch(Launch(kernel, f"{kernel}.cu", arguments, constants, grid=grid, threads=_THREADS))
