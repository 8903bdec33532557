"""The linear on codes: exact integer sums on tensor cores, and everything else in the epilogue."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F

from dvdq_kernels.activation_codes import unpack_codes
from dvdq_kernels.backends.cupy import mma, wgmma
from dvdq_kernels.backends.cupy.alignment import aligned
from dvdq_kernels.backends.cupy.code_sums import code_sums
from dvdq_kernels.backends.cupy.product import Product
from dvdq_kernels.backends.cupy.product_tiles import unpack_from
from dvdq_kernels.backends.cupy.unpack import unpack
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.layout import is_packed

_WGMMA_FROM = 65
"""Tokens from which a product is of the size that ``wgmma`` multiplies: it takes 64 rows at a time."""


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
    share both scales; ``codes`` int8 ``[..., in]`` or two a byte, uint8 ``[..., in / 2]``, ``x_scale``
    ``[..., blocks]``, output ``[..., out]``.

    Codes that lie two a byte meet INT4 tensor cores, others those of INT8. Few tokens are bound by the bytes of the
    weight, ``out · in / 2``, read once and decoded in the loop; many by ``2 · tokens · out · in`` operations.

    Float64 is computed as float32. Nibbles whose parts are no multiple of 64 channels are made bytes first, and parts
    of bytes filled up with zeros to a multiple of 32, in copies of both operands: right, and slow; no model has such
    sizes.
    """
    leading, out_features = codes.shape[:-1], qweight.shape[0]
    held = torch.float32 if dtype == torch.float64 else dtype
    out = torch.empty((*leading, out_features), dtype=held, device=codes.device)
    if out.numel() == 0:
        return out.to(dtype)
    v = aligned(codes.reshape(-1, codes.shape[-1]))
    s = x_scale.reshape(v.shape[0], x_scale.shape[-1]).contiguous()
    qweight, scale = aligned(qweight), scale.contiguous()
    in_features = v.shape[1] * (2 if v.dtype == torch.uint8 else 1)
    width = gcd(in_features // s.shape[1], in_features // scale.shape[1])
    if width * code_offset(x_bits) * code_offset(bits) >= 2**31:
        raise DvdqError("integer_linear", expected="channels whose sum int32 can hold", got=f"{width} in one sum")
    v, weight, filled = _operands(v, qweight, width, in_features, x_bits, bits)
    parts = in_features // width
    product = Product(
        codes=v,
        x_scale=s,
        # Without zero-points nobody reads them.
        code_sum=code_sums(v, parts) if zero is not None and scale.shape[1] > 1 else token_sum.reshape(-1).contiguous(),
        weight=weight,
        scale=scale,
        zero=None if zero is None else zero.contiguous(),
        bias=None if bias is None else bias.contiguous(),
        out=out,
        in_features=filled * parts,
        width=filled,
        x_bits=x_bits,
        bits=bits,
    )
    _multiply(product)
    return out.to(dtype)


def _operands(
    v: torch.Tensor, qweight: torch.Tensor, width: int, in_features: int, x_bits: int, bits: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Both operands as a kernel multiplies them, and the channels of a part in them.

    A weight is multiplied as it is stored, or unpacked first: from :func:`~.product_tiles.unpack_from` tokens on, where
    the loop cannot decode it, or where 16 u, which is what it decodes, does not fit.
    """
    if v.dtype == torch.uint8:
        if is_packed(bits) and width % 64 == 0:
            return v, qweight, width
        v = unpack_codes(v)
    decodes = not is_packed(bits) or (width % 64 == 0 and width * code_offset(x_bits) * 16 * code_offset(bits) < 2**31)
    if width % 32 == 0 and decodes and v.shape[0] < unpack_from(v.device):
        return v, qweight, width
    weight = unpack(qweight, bits, in_features)
    missing = -width % 32
    if missing:
        v, weight = (_filled(operand, width, missing) for operand in (v, weight))
    return v, weight, width + missing


def _multiply(product: Product) -> None:
    decodes = product.weight.dtype == torch.uint8
    multiplied = product.codes.dtype == torch.int8 and (not decodes or is_packed(product.bits))
    if multiplied and product.tokens >= _WGMMA_FROM and wgmma.takes(product):
        wgmma.multiply(product, decodes)
    else:
        mma.multiply(product)


def _filled(operand: torch.Tensor, width: int, missing: int) -> torch.Tensor:
    """``operand`` with ``missing`` zeros after each part of ``width``."""
    return F.pad(operand.view(operand.shape[0], -1, width), (0, missing)).flatten(1)
