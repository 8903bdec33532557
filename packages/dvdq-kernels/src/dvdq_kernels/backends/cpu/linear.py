"""The linears on packed weights: integer products (W4A8, W4A4) and full activations (W4A16)."""

from __future__ import annotations

import re
from functools import cache
from math import lcm
from pathlib import Path
from typing import NamedTuple

import llvmlite.binding as llvm
import torch
import torch.nn.functional as F

from dvdq_kernels.backends.cpu.activation import rotate
from dvdq_kernels.backends.cpu.compilation import Kernel, kernel
from dvdq_kernels.backends.cpu.floats import ELEMENTS, readable
from dvdq_kernels.backends.cpu.instruction_sets import at_hand
from dvdq_kernels.backends.cpu.packing import filled_channels, padded, stored_bits
from dvdq_kernels.backends.cpu.product import outputs_of, scratch_of, write_product
from dvdq_kernels.backends.cpu.weight import dequantize
from dvdq_kernels.backends.cpu.weight_only import ROWS, write_few_tokens
from dvdq_kernels.registry import remembered
from dvdq_reference.spec.bits import code_offset

_L2 = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
"""Where Linux tells the size of the second cache, e.g. ``1024K``."""
_SMALL_L2, _LARGE_L2 = 2**19, 2**21
"""What is told beyond the second is shared by several cores."""
_WORTH = 2**21
"""Products that a thread has to have, to be worth its start."""
_WORTH_READING = 2**18
"""And weights, where each is decoded for a few products."""
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
    shape = codes.shape
    blocks, groups = x_scale.shape[-1], scale.shape[1]
    plan = _plan(shape[-1], blocks, groups, x_bits, bits, dtype, torch.float32 if bias is None else bias.dtype)
    if plan.filled != shape[-1]:
        codes, qweight = padded(codes, qweight, plan.parts, bits)
    if bias is not None and bias.dtype != plan.bias:
        bias = bias.to(plan.bias)
    tokens, outputs = codes.numel() // plan.filled, qweight.shape[0]
    out = torch.empty((*shape[:-1], outputs), dtype=plan.output)
    inputs = codes, x_scale, token_sum, qweight, scale, zero, bias
    kept = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (*kept, out)]
    words = plan.scratch + min(plan.chunk, tokens) * plan.parts
    worth = _WORTH // (tokens * plan.filled + 1) + 1
    plan.run((*addresses, tokens, outputs, *plan.sizes), outputs, plan.together, worth, 4 * words)
    return out if plan.output == dtype else out.to(dtype)


class _Plan(NamedTuple):
    """What a product of one format and depth runs: its kernel, and sizes that do not depend on tokens and outputs.

    Attributes:
        run: the kernel.
        output: the dtype that it writes.
        bias: and that of the bias that it reads.
        parts: of a row that share both scales.
        filled: input channels once parts are filled up to whole words.
        together: outputs of a tile.
        chunk: tokens that pass over a tile before the next.
        sizes: the last arguments of the kernel.
        scratch: words of scratch but for the sums of codes.
    """

    run: Kernel
    output: torch.dtype
    bias: torch.dtype
    parts: int
    filled: int
    together: int
    chunk: int
    sizes: tuple[int, ...]
    scratch: int


@remembered
def _plan(
    channels: int, blocks: int, groups: int, x_bits: int, bits: int, dtype: torch.dtype, bias: torch.dtype
) -> _Plan:
    instructions, stored = at_hand(), stored_bits(bits)
    output, bias = (kind if kind in instructions.dtypes else torch.float32 for kind in (dtype, bias))
    parts = lcm(blocks, groups)
    filled = filled_channels(channels, parts)
    chunk = max(1, _l2_bytes() // 2 // (filled * instructions.tile[0])) * instructions.tile[0]
    run = kernel(
        write_product,
        instructions,
        limit=instructions.steps(x_bits),
        stored=stored,
        grouped=groups > 1,
        output=ELEMENTS[output],
        bias=ELEMENTS[bias],
    )
    sizes = filled, filled // parts, blocks, groups, chunk, code_offset(bits)
    words = scratch_of(instructions, filled, stored, groups)
    return _Plan(run, output, bias, parts, filled, outputs_of(instructions), chunk, sizes, words)


@cache
def _l2_bytes() -> int:
    """Of a core's second cache, of which one half holds the codes of tokens that pass over a tile of the weight."""
    try:
        told = re.fullmatch(r"(\d+)K\s*", _L2.read_text())
    except OSError:
        return _SMALL_L2
    return _SMALL_L2 if told is None else min(max(_SMALL_L2, int(told[1]) * 2**10), _LARGE_L2)


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
    values = x if kind is None else rotate(x.to(work), kind, seed)
    word = at_hand().lanes * 32 // stored_bits(bits)
    if work == torch.float32 and 0 < tokens <= _FEW and channels // groups % word == 0:
        rows = readable(values, at_hand())
        out = torch.empty((tokens, qweight.shape[0]), dtype=rows.dtype)
        for some, result in zip(rows.split(_AT_ONCE), out.split(_AT_ONCE), strict=True):
            _multiply_few(some, qweight, scale, zero, bias, bits, result)
        return out.to(x.dtype).view(*x.shape[:-1], qweight.shape[0])
    weight = dequantize(qweight, scale, zero, bits, channels)
    if x.dtype == torch.bfloat16 and _multiplies_bfloat16():
        work = torch.bfloat16
    return F.linear(values.to(work), weight.to(work), None if bias is None else bias.to(work)).to(x.dtype)


def _multiply_few(
    x: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    bits: int,
    out: torch.Tensor,
) -> None:
    """``x Ŵᵀ + bias`` into ``out``."""
    (tokens, channels), (outputs, groups) = x.shape, scale.shape
    if bias is not None and bias.dtype not in at_hand().dtypes:
        bias = bias.to(torch.float32)
    run = _few_tokens_kernel(tokens, stored_bits(bits), x.dtype, torch.float32 if bias is None else bias.dtype)
    inputs = [None if tensor is None else tensor.contiguous() for tensor in (qweight, scale, zero, bias)]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (x, *inputs, out)]
    sizes = outputs, channels, x.stride(0), groups, code_offset(bits)
    run((*addresses, *sizes), outputs, ROWS, _WORTH_READING // channels + 1, 4 * tokens * channels)


@remembered
def _few_tokens_kernel(tokens: int, stored: int, dtype: torch.dtype, bias: torch.dtype) -> Kernel:
    kinds = {"element": ELEMENTS[dtype], "bias": ELEMENTS[bias]}
    return kernel(write_few_tokens, at_hand(), tokens=tokens, stored=stored, **kinds)


@cache
def _multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16; without them they take many times those of float32."""
    has = llvm.get_host_cpu_features()
    return any(has.get(name) for name in ("avx512bf16", "amx-bf16", "bf16"))
