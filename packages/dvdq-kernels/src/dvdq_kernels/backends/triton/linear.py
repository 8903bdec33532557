"""The linear on codes: exact integer sums on tensor cores, and everything else in the epilogue."""

from __future__ import annotations

from math import gcd

import torch
import triton

from dvdq_kernels.backends.triton.launch import held_dtype, launch
from dvdq_kernels.backends.triton.product_tiles import Task, choose, unpack_from
from dvdq_kernels.backends.triton.products import code_sums, integer_product
from dvdq_kernels.backends.triton.unpack import unpack
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.layout import is_packed


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
    share both scales; ``codes`` int8 ``[..., in]``, ``x_scale`` ``[..., blocks]``, output ``[..., out]``.

    Few tokens are bound by the bytes of the weight, ``out · in / 2``, read once and decoded in the loop. Many are bound
    by the ``2 · tokens · out · in`` operations of INT8 tensor cores, which then find bytes that need no decoding: the
    weight is unpacked first, which costs ``1.5 · out · in`` bytes. With parts, each output costs a conversion and a
    multiplication a part besides: as long as half of a product of 64 channels on Hopper, and little elsewhere.
    """
    leading, in_features, out_features = codes.shape[:-1], codes.shape[-1], qweight.shape[0]
    out = torch.empty((*leading, out_features), dtype=held_dtype(dtype), device=codes.device)
    if out.numel() == 0:
        return out.to(dtype)
    v = codes.reshape(-1, in_features).contiguous()
    s = x_scale.reshape(v.shape[0], -1).contiguous()
    qweight, scale = qweight.contiguous(), scale.contiguous()
    blocks, groups = s.shape[1], scale.shape[1]
    width = gcd(in_features // blocks, in_features // groups)
    if width * code_offset(x_bits) * code_offset(bits) >= 2**31:
        raise DvdqError("integer_linear", expected="channels whose sum int32 can hold", got=f"{width} in one sum")
    # The loop cannot decode a byte whose channels have unlike scales, and what it decodes counts up to 16 times more.
    fits = not is_packed(bits) or (width % 2 == 0 and width * code_offset(x_bits) * 16 * code_offset(bits) < 2**31)
    unpacks = not fits or v.shape[0] >= unpack_from(codes.device)
    weight = unpack(qweight, bits, in_features) if unpacks else qweight
    parts, per_byte = in_features // width, in_features // weight.shape[1]
    task = Task("integer", v.shape[0], out_features, width, parts, groups > 1, 1, per_byte, not unpacks)
    config = choose(task, codes.device)
    launch(
        integer_product,
        (triton.cdiv(v.shape[0], config.block_m) * triton.cdiv(out_features, config.block_n),),
        {
            "codes_ptr": v,
            "x_scale_ptr": s,
            "code_sum_ptr": token_sum.reshape(-1).contiguous() if groups == 1 else _code_sums(v, width),
            "weight_ptr": weight,
            "scale_ptr": scale,
            "zero_ptr": None if zero is None else zero.contiguous(),
            "bias_ptr": None if bias is None else bias.contiguous(),
            "out_ptr": out,
            "tokens": v.shape[0],
            "out_features": out_features,
        },
        {
            "IN_FEATURES": in_features,
            "BLOCKS": blocks,
            "GROUPS": groups,
            "WIDTH": width,
            "BITS": bits,
            **config.blocks(),
        },
        warps=config.warps,
        stages=config.stages,
    )
    return out.to(dtype)


def _code_sums(v: torch.Tensor, width: int) -> torch.Tensor:
    """``Σ_{k∈c} v``, float32 ``[tokens, parts]``; bound by the bytes of ``v``, which it reads once."""
    tokens, parts = v.shape[0], v.shape[1] // width
    sums = torch.empty((tokens, parts), dtype=torch.float32, device=v.device)
    rows, span = 32, min(128, triton.next_power_of_2(width))
    launch(
        code_sums,
        (triton.cdiv(tokens, rows) * parts,),
        {"codes_ptr": v, "sum_ptr": sums, "tokens": tokens},
        {"PARTS": parts, "WIDTH": width, "ROWS": rows, "SPAN": span},
    )
    return sums
