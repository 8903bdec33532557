"""The linears on packed weights: integer products (W4A8, W4A4) and full activations (W4A16)."""

from __future__ import annotations

from functools import cache
from math import gcd

import llvmlite.binding as llvm
import torch
import torch.nn.functional as F

from dvdq_kernels.backends.cpu.activation import rotate
from dvdq_kernels.backends.cpu.compilation import kernel
from dvdq_kernels.backends.cpu.floats import ELEMENTS
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet, at_hand
from dvdq_kernels.backends.cpu.packing import padded, stored_bits
from dvdq_kernels.backends.cpu.product import outputs_of, scratch_of, write_product
from dvdq_kernels.backends.cpu.threads import split
from dvdq_kernels.backends.cpu.weight import dequantize
from dvdq_kernels.backends.cpu.weight_only import ROWS, write_few_tokens
from dvdq_reference.spec.bits import code_offset

_CACHED = 2**18
"""Bytes of activation codes that pass over a tile of the weight before the next tile: half of a small L2 cache."""
_WORTH = 2**21
"""Products that a thread has to have, to be worth its start."""
_FEW = 16
"""Tokens up to which weights are decoded while they are multiplied: with more, a product of floats is the faster."""
_AT_ONCE = 4
"""Tokens that share the decoding of a weight."""


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
    leading, outputs = codes.shape[:-1], qweight.shape[0]
    blocks, groups = x_scale.shape[-1], scale.shape[1]
    parts = blocks * groups // gcd(blocks, groups)
    codes, qweight = padded(codes, qweight, parts, bits)
    channels = codes.shape[-1]
    tokens = codes.numel() // channels
    instructions = at_hand()
    stored = dtype if _writes(instructions, dtype) else torch.float32
    if bias is not None and not _writes(instructions, bias.dtype):
        bias = bias.to(torch.float32)
    run = kernel(
        write_product,
        instructions,
        limit=instructions.steps(x_bits),
        stored=stored_bits(bits),
        grouped=groups > 1,
        output=ELEMENTS[stored],
        bias=ELEMENTS[torch.float32 if bias is None else bias.dtype],
    )
    out = torch.empty((*leading, outputs), dtype=stored)
    inputs = [
        None if tensor is None else tensor.contiguous()
        for tensor in (codes, x_scale, token_sum, qweight, scale, zero, bias)
    ]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (*inputs, out)]
    rows = instructions.tile[0]
    chunk = min(max(1, _CACHED // (channels * rows)) * rows, tokens)
    sizes = outputs, channels, channels // parts, blocks, groups, chunk, code_offset(bits)
    scratch_size = scratch_of(instructions, channels, stored_bits(bits), groups, chunk * parts)

    def part(first: int, last: int) -> None:
        scratch = torch.empty(scratch_size, dtype=torch.int32)
        run(*addresses, scratch.data_ptr(), 0, tokens, first, last, *sizes)

    split(part, outputs, outputs_of(instructions), _WORTH // max(1, tokens * channels) + 1)
    return out if stored == dtype else out.to(dtype)


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
    """``Y = (X R) Ŵᵀ + bias``: in float32 and rounded once, in float64 if that is X's dtype, or in bfloat16 where there
    are many tokens and the processor multiplies these.
    """
    channels, groups, tokens = x.shape[-1], scale.shape[1], x.numel() // x.shape[-1]
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    values = x.to(work)
    if kind is not None:
        values = rotate(values, kind, seed)
    instructions = at_hand()
    word = instructions.lanes * 32 // stored_bits(bits)
    if work == torch.float32 and 0 < tokens <= _FEW and channels // groups % word == 0:
        rows = values.reshape(-1, channels)
        parts = [_few_tokens(some, qweight, scale, zero, bits, instructions) for some in rows.split(_AT_ONCE)]
        result = parts[0] if len(parts) == 1 else torch.cat(parts)
        if bias is not None:
            result += bias
        return result.to(x.dtype).view(*x.shape[:-1], qweight.shape[0])
    weight = dequantize(qweight, scale, zero, bits, channels)
    if x.dtype == torch.bfloat16 and _multiplies_bfloat16():
        work = torch.bfloat16
    return F.linear(values.to(work), weight.to(work), None if bias is None else bias.to(work)).to(x.dtype)


def _few_tokens(
    x: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bits: int,
    instructions: InstructionSet,
) -> torch.Tensor:
    """``x Ŵᵀ`` in float32, of up to ``_AT_ONCE`` tokens."""
    tokens, channels = x.shape
    outputs, groups = scale.shape
    stored = stored_bits(bits)
    words = x.view(tokens, -1, instructions.lanes, 32 // stored).transpose(-1, -2).contiguous()
    x_sum = x.view(tokens, groups, -1).sum(dim=-1)
    out = torch.empty(tokens, outputs)
    inputs = [None if tensor is None else tensor.contiguous() for tensor in (words, x_sum, qweight, scale, zero)]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (*inputs, out)]
    run = kernel(write_few_tokens, instructions, tokens=tokens, stored=stored)

    def part(first: int, last: int) -> None:
        run(*addresses, first, last, outputs, channels, groups, code_offset(bits))

    split(part, outputs, ROWS, _WORTH // channels + 1)
    return out


def _writes(instructions: InstructionSet, dtype: torch.dtype) -> bool:
    """Whether products read and write this dtype; float32 stands in for the others."""
    return dtype in (torch.float32, torch.bfloat16) or (dtype == torch.float16 and instructions.half)


@cache
def _multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16; without them they take many times those of float32."""
    has = llvm.get_host_cpu_features()
    return any(has.get(name) for name in ("avx512bf16", "amx-bf16", "bf16"))
