"""The linears on packed weights: integer products (W4A8, W4A4) and full activations (W4A16)."""

from __future__ import annotations

from math import gcd

import torch

from dvdq_kernels.backends.cpu.compilation import kernel
from dvdq_kernels.backends.cpu.floats import ELEMENTS
from dvdq_kernels.backends.cpu.instruction_sets import at_hand
from dvdq_kernels.backends.cpu.product import outputs_of, write_product
from dvdq_kernels.backends.cpu.threads import split

_CACHED = 2**18
"""Bytes of activation codes that pass over a tile of the weight before the next tile: half of a small L2 cache."""
_WORTH = 2**21
"""Products that a thread has to have, to be worth its start."""


def integer_linear(
    codes: torch.Tensor,
    x_scale: torch.Tensor,
    token_sum: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    x_bits: int,
    bits: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``Y`` of :func:`~dvdq_kernels.backends.cpu.product.write_product`, ``[..., out]``."""
    leading, channels = codes.shape[:-1], codes.shape[-1]
    outputs, blocks, groups = qweight.shape[0], x_scale.shape[-1], scale.shape[1]
    width = gcd(channels // blocks, channels // groups)
    instructions = at_hand()
    stored = torch.float32 if dtype == torch.float64 or (dtype == torch.float16 and not instructions.half) else dtype
    if bias is not None and (bias.dtype == torch.float64 or (bias.dtype == torch.float16 and not instructions.half)):
        bias = bias.to(torch.float32)
    run = kernel(
        write_product,
        instructions,
        x_bits=x_bits,
        bits=bits,
        grouped=groups > 1,
        output=ELEMENTS[stored],
        bias=ELEMENTS[torch.float32 if bias is None else bias.dtype],
    )
    tokens = codes.numel() // channels
    out = torch.empty((*leading, outputs), dtype=stored)
    tensors = [tensor if tensor is None else tensor.contiguous() for tensor in (codes, x_scale, token_sum, qweight, scale, zero, bias)]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (*tensors, out)]
    together = outputs_of(instructions)
    chunk = max(instructions.tile[0], _CACHED // channels // instructions.tile[0] * instructions.tile[0])
    words = channels // 4 if bits <= 4 else channels // 2
    size = words * together + (2 * groups + 1) * together + min(chunk, tokens) * (channels // width)

    def work(first: int, last: int) -> None:
        scratch = torch.empty(size, dtype=torch.int32)
        run(*addresses, scratch.data_ptr(), 0, tokens, first, last, outputs, channels, width, blocks, groups, chunk)

    split(work, outputs, together, _WORTH // max(1, tokens * channels) + 1)
    return out if stored == dtype else out.to(dtype)
