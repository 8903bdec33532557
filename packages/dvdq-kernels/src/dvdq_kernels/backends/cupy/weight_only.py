"""The linear on full activations and packed weights (W4A16): modulation layers, one to sixteen tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dvdq_kernels.backends.cupy.alignment import ALIGNMENT, aligned
from dvdq_kernels.backends.cupy.hadamard import rotate
from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.target import multiprocessors, target_of
from dvdq_kernels.gpu import shared_memory
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.layout import is_packed

_WARPS = 4


def float_linear(
    x: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    bits: int,
    kind: str | None,
    seed: int | None,
) -> torch.Tensor:
    """``Y = (X R) Ŵᵀ + bias``, ``Ŵ = Δ(q - z)``, from X's dtype to X's dtype with float32 sums, for float64 float64.

    What is multiplied is q - z, which is exact, and Δ follows: once for the 32 channels, or 16 of a byte each, that a
    thread has of a row at a time. Few tokens are bound by the bytes of the weight, ``out · in / 2``, which is read once
    for up to sixteen of them, as far as they fit in shared memory. More tokens read it once for every tile of them and
    multiply without tensor cores: right, not fast.
    """
    out = torch.empty((*x.shape[:-1], qweight.shape[0]), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    if kind is not None:
        x = rotate(x, kind, seed)
    rows = aligned(x.reshape(-1, x.shape[-1]))
    (tokens, in_features), (out_features, groups) = rows.shape, scale.shape
    tensors = rows, aligned(qweight), scale.contiguous(), *(t if t is None else t.contiguous() for t in (zero, bias))
    sizes = np.int64(tokens), np.int64(out_features), np.int32(in_features), np.int32(groups)
    arguments = (*tensors, out, *sizes, np.int32(code_offset(bits)))
    constants = {
        "X": x.dtype,
        "WIDE": torch.promote_types(x.dtype, torch.float32),
        "BIAS": x.dtype if bias is None else bias.dtype,
        "PACKED": is_packed(bits),
    }
    if (in_features // groups) % _channels(bits):
        launch(
            Launch(
                "weight_only_any",
                "weight_only_any.cu",
                arguments,
                constants,
                grid=-(-tokens * out_features // _WARPS),
                threads=32 * _WARPS,
            )
        )
        return out
    tile = _tile(rows, bits)
    turns = -(-out_features // (_WARPS * tile.rows * tile.blocks * multiprocessors(x.device)))
    launch(
        Launch(
            "weight_only",
            "weight_only.cu",
            (*arguments, np.int32(turns)),
            {**constants, **tile.constants()},
            grid=-(-tokens // tile.tokens) * -(-out_features // (_WARPS * tile.rows * turns)),
            threads=32 * _WARPS,
            shared=tile.shared,
            tile=f"{tile.tokens}×{tile.rows}",
        )
    )
    return out


@dataclass(frozen=True)
class _Tile:
    """What a warp multiplies at a time.

    Attributes:
        tokens: of the activations.
        rows: of the weight.
        shared: bytes of shared memory in which a block has its tokens; 0 if they do not fit.
        blocks: on a multiprocessor, so many that enough bytes of the weight are on their way.
    """

    tokens: int
    shared: int

    @property
    def rows(self) -> int:
        return 4 if self.tokens < 8 else 2

    @property
    def blocks(self) -> int:
        return 4 if self.tokens < 4 else 2

    def constants(self) -> dict[str, Any]:
        return {"TOKENS": self.tokens, "ROWS": self.rows, "BLOCKS": self.blocks, "STAGED": self.shared > 0}


def _tile(x: torch.Tensor, bits: int) -> _Tile:
    """Of ``x`` ``[tokens, in]``: all tokens, if there are few enough for a warp's registers and shared memory."""
    step = 32 * _channels(bits)
    token = -(-x.shape[1] // step) * step * x.element_size()
    most = shared_memory(target_of(x.device))
    tokens = min(4 if x.dtype == torch.float64 else 16, 1 << (x.shape[0] - 1).bit_length())
    while tokens > 1 and tokens * token > most:
        tokens //= 2
    return _Tile(tokens, tokens * token if tokens * token <= most else 0)


def _channels(bits: int) -> int:
    """Channels of 16 bytes of codes: what lies in a group from a multiple of them on."""
    return ALIGNMENT * (2 if is_packed(bits) else 1)
