"""Codes of a stored grid, in the canonical layout, and back (Eq. 1, 2)."""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.grids import rint
from dvdq_kernels.backends.triton.launch import launch
from dvdq_reference.spec.layout import packed_width

_BLOCK_N = 1024
_TILE = 4096
"""Elements a program: 32 a thread."""


@triton.jit
def _encode(
    weight_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    qweight_ptr: tl.tensor,
    out_features: tl.tensor,
    in_features: tl.tensor,
    width: tl.tensor,
    BITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """``q = clamp(round(w/Δ) + z, 0, 2^b - 1)``, half to even, divided in float64, of a ``[BLOCK_M, BLOCK_N]`` tile.

    ``weight [out, in]``, ``scale`` and ``zero`` ``[out, in / width]``; ``qweight`` holds two codes a byte up to 4 bits,
    the even channel low.
    """
    LEVELS: tl.constexpr = (1 << BITS) - 1
    PER_BYTE: tl.constexpr = 2 if BITS <= 4 else 1
    row = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None]
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    inside = (row < out_features) & (column < in_features)
    weight = tl.load(weight_ptr + row * in_features + column, mask=inside, other=0.0).to(tl.float64)
    part = row * (in_features // width) + column // width
    scale = tl.load(scale_ptr + part, mask=inside, other=1.0).to(tl.float64)
    zero = tl.load(zero_ptr + part, mask=inside, other=0).to(tl.float64)
    codes = tl.minimum(tl.maximum(rint(weight / scale) + zero, 0.0), LEVELS).to(tl.int32)
    if PER_BYTE == 2:
        even, odd = tl.split(codes.reshape(BLOCK_M, BLOCK_N // 2, 2))
        codes = even | (odd << 4)
    byte = tl.program_id(1) * (BLOCK_N // PER_BYTE) + tl.arange(0, BLOCK_N // PER_BYTE)[None, :]
    inside = (row < out_features) & (byte < in_features // PER_BYTE)
    tl.store(qweight_ptr + row * (in_features // PER_BYTE) + byte, codes.to(tl.uint8), mask=inside)


@triton.jit
def _decode(
    qweight_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    out_features: tl.tensor,
    in_features: tl.tensor,
    width: tl.tensor,
    BITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """``Ŵ = Δ(q - z)``, float32, of a ``[BLOCK_M, BLOCK_N]`` tile: the inverse of ``_encode``.

    Without zero-points ``zero`` is None, and z is ``2^(b-1)``.
    """
    OFFSET: tl.constexpr = 1 << (BITS - 1)
    PER_BYTE: tl.constexpr = 2 if BITS <= 4 else 1
    row = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None]
    byte = tl.program_id(1) * (BLOCK_N // PER_BYTE) + tl.arange(0, BLOCK_N // PER_BYTE)[None, :]
    inside = (row < out_features) & (byte < in_features // PER_BYTE)
    codes = tl.load(qweight_ptr + row * (in_features // PER_BYTE) + byte, mask=inside, other=0).to(tl.int32)
    if PER_BYTE == 2:
        codes = tl.join(codes & 15, codes >> 4).reshape(BLOCK_M, BLOCK_N)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    inside = (row < out_features) & (column < in_features)
    part = row * (in_features // width) + column // width
    scale = tl.load(scale_ptr + part, mask=inside, other=0.0)
    zero = OFFSET if zero_ptr is None else tl.load(zero_ptr + part, mask=inside, other=0)
    tl.store(weight_ptr + row * in_features + column, scale * (codes - zero).to(tl.float32), mask=inside)


def encode(weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """Packed codes of a contiguous ``[out, in]`` weight on the grid ``[out, groups]``: one pass, bound by bytes."""
    qweight = torch.empty(
        (weight.shape[0], packed_width("encode", weight.shape[1], bits)), dtype=torch.uint8, device=weight.device
    )
    grids = {"scale_ptr": scale, "zero_ptr": zero}
    _launch(_encode, weight.shape, scale.shape[1], bits, {"weight_ptr": weight, **grids, "qweight_ptr": qweight})
    return qweight


def decode(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
) -> torch.Tensor:
    """Ŵ float32 ``[out, in]`` of contiguous codes and grids: one pass, bound by bytes."""
    weight = torch.empty((qweight.shape[0], in_features), dtype=torch.float32, device=qweight.device)
    grids = {"scale_ptr": scale, "zero_ptr": zero}
    _launch(_decode, weight.shape, scale.shape[1], bits, {"qweight_ptr": qweight, **grids, "weight_ptr": weight})
    return weight


def _launch(
    kernel: object, shape: torch.Size, groups: int, bits: int, arguments: dict[str, torch.Tensor | None]
) -> None:
    out_features, in_features = shape
    block_n = min(_BLOCK_N, triton.next_power_of_2(in_features))
    block_m = _TILE // block_n
    sizes = {"out_features": out_features, "in_features": in_features, "width": in_features // groups}
    launch(
        kernel,
        (triton.cdiv(out_features, block_m), triton.cdiv(in_features, block_n)),
        {**arguments, **sizes},
        {"BITS": bits, "BLOCK_M": block_m, "BLOCK_N": block_n},
    )
