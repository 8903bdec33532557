"""The linears on packed weights: exact integers (W4A8, W4A4), and full activations (W4A16).

Plain torch has no fast integer product on a CPU, but a float product of integers *is* integer arithmetic as long as
every partial sum stays below the width of the mantissa: 8 · 128 · 16384 = 2^24 for W4A8 in float32.
"""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F

from dvdq_kernels.activation_codes import unpack_codes
from dvdq_kernels.backends.torch.hadamard import transform
from dvdq_kernels.backends.torch.packing import unpack
from dvdq_kernels.backends.torch.weight import dequantize
from dvdq_reference.spec.bits import code_offset


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
    """``Y[t,n] = Σ_c s[t,c] Δ[n,c] (Σ_{k∈c} v·u - (z[n,c] - 2^(b-1)) Σ_{k∈c} v) + bias``, c the parts of a row that
    share both scales; ``codes`` int8 ``[..., in]`` or packed uint8 ``[..., in / 2]``, ``x_scale`` ``[..., blocks]``,
    output ``[..., out]``.
    """
    if codes.dtype == torch.uint8:
        codes = unpack_codes(codes)
    tokens, in_features = codes.shape[:-1], codes.shape[-1]
    v = codes.reshape(-1, in_features)
    s = x_scale.reshape(v.shape[0], x_scale.shape[-1])
    if scale.shape[1] == 1:
        result = _per_row(v, s, token_sum.reshape(-1), qweight, scale, zero, x_bits, bits)
    else:
        result = _grouped(v, s, qweight, scale, zero, x_bits, bits)
    if bias is not None:
        result += bias
    return result.to(dtype).view(*tokens, qweight.shape[0])


def _exact_dtype(width: int, x_bits: int, bits: int) -> torch.dtype:
    """The narrowest float in which a sum of ``width`` products of codes is exact."""
    return torch.float32 if width * code_offset(x_bits) * code_offset(bits) <= 2**24 else torch.float64


def _per_row(
    v: torch.Tensor,
    s: torch.Tensor,
    token_sum: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    x_bits: int,
    bits: int,
) -> torch.Tensor:
    in_features, blocks = v.shape[1], s.shape[1]
    width = in_features // blocks
    exact = _exact_dtype(width, x_bits, bits)
    u = unpack(qweight, bits, exact, code_offset(bits))
    v = v.to(exact)
    total = (v[:, :width] @ u[:, :width].t()).to(torch.float32).mul_(s[:, :1])
    for b in range(1, blocks):
        part = slice(b * width, (b + 1) * width)
        total.addcmul_((v[:, part] @ u[:, part].t()).to(torch.float32), s[:, b : b + 1])
    if zero is not None:
        total.addr_(token_sum, (zero[:, 0] - code_offset(bits)).to(torch.float32), alpha=-1)
    return total.mul_(scale[:, 0])


def _grouped(
    v: torch.Tensor,
    s: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    x_bits: int,
    bits: int,
) -> torch.Tensor:
    in_features = v.shape[1]
    width = gcd(in_features // s.shape[1], in_features // scale.shape[1])
    exact = _exact_dtype(width, x_bits, bits)
    u = unpack(qweight, bits, exact, code_offset(bits))
    s = s.repeat_interleave(in_features // width // s.shape[1], dim=1)
    d = scale.repeat_interleave(in_features // width // scale.shape[1], dim=1)
    v = v.to(exact)
    if zero is None:
        total = torch.zeros((v.shape[0], u.shape[0]), device=v.device)
    else:
        part_sums = s * v.view(v.shape[0], in_features // width, width).sum(dim=-1).to(torch.float32)
        offset = (zero - code_offset(bits)).repeat_interleave(d.shape[1] // zero.shape[1], dim=1)
        total = part_sums @ (d * offset).neg_().t()
    for c in range(s.shape[1]):
        part = slice(c * width, (c + 1) * width)
        dots = (v[:, part] @ u[:, part].t()).to(torch.float32)
        total.addcmul_(dots.mul_(s[:, c : c + 1]), d[:, c])
    return total


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
    """``Y = (X R) Ŵᵀ + bias``: Ŵ decoded in float32, rounded to X's dtype, which is the product's."""
    in_features = x.shape[-1]
    if kind is not None:
        x = transform(x.to(torch.promote_types(x.dtype, torch.float32)), kind, seed).to(x.dtype)
    weight = dequantize(qweight, scale, zero, bits, in_features).to(x.dtype)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))
