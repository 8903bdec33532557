"""The linear on full activations and packed weights (W4A16): modulation layers, one to sixteen tokens."""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.hadamard import rotate
from dvdq_kernels.backends.triton.launch import held_dtype, launch
from dvdq_kernels.backends.triton.product_tiles import Task, choose
from dvdq_kernels.backends.triton.products import store_tile, tile_of
from dvdq_kernels.backends.triton.weight import dequantize
from dvdq_reference.spec.bits import code_offset


@triton.jit
def _centred(codes: tl.tensor, z: tl.tensor, PLACE: tl.constexpr, dtype: tl.constexpr) -> tl.tensor:
    """``q - z`` for uint32 ``codes = q · 2^PLACE`` ``[N, K]`` and zero-points ``[N]``: exact, then cast to ``dtype``.

    A float32 of the exponent 23 - PLACE whose last bits are ``codes`` is ``2^(23 - PLACE) + q``: neither a shift nor a
    conversion, and a subtraction that is needed anyway.
    """
    EXPONENT: tl.constexpr = (127 + 23 - PLACE) << 23
    LEADING: tl.constexpr = 1 << (23 - PLACE)
    return ((codes | EXPONENT).to(tl.float32, bitcast=True) - (z + LEADING)[:, None]).to(dtype)


@triton.jit
def _weight_only_product(
    x_ptr: tl.tensor,
    qweight_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    tokens: tl.tensor,
    out_features: tl.tensor,
    IN_FEATURES: tl.constexpr,
    GROUPS: tl.constexpr,
    PER_BYTE: tl.constexpr,
    OFFSET: tl.constexpr,
    WIDENS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
) -> None:
    """``Y[t,n] = Σ_g Δ[n,g] Σ_{k∈g} x[t,k] (q[n,k] - z[n,g]) + bias[n]``, one tile a program.

    ``x`` ``[tokens, IN_FEATURES]``, ``qweight`` uint8 codes as stored, ``scale`` and ``zero`` ``[out, GROUPS]``.
    Without zero-points ``zero`` is None and z is ``OFFSET``. The product is in the dtype of x, or in float32 if it
    ``WIDENS``; sums are in float32.
    """
    WIDTH: tl.constexpr = IN_FEATURES // GROUPS
    TILES: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K
    BYTES: tl.constexpr = IN_FEATURES // PER_BYTE
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    product: tl.constexpr = tl.float32 if WIDENS else dtype
    first_m, first_n = tile_of(tl.program_id(0), tokens, out_features, BLOCK_M, BLOCK_N, GROUP_M)
    m, n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    k, byte = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_K // PER_BYTE)
    inside_m, inside_n = m < tokens - first_m, n < out_features - first_n
    first_m, first_n = first_m.to(tl.int64), first_n.to(tl.int64)
    x_ptrs = x_ptr + first_m * IN_FEATURES + (m[:, None] * IN_FEATURES + k[None, :])
    q_ptrs = qweight_ptr + first_n * BYTES + (n[:, None] * BYTES + byte[None, :])
    grid = first_n * GROUPS + n * GROUPS
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    z = tl.full((BLOCK_N,), OFFSET, tl.float32)
    if zero_ptr is not None:
        z = tl.load(zero_ptr + grid, mask=inside_n, other=0).to(tl.float32)
    for step in tl.range(GROUPS * TILES):
        group, tile = step // TILES, step % TILES
        start, left = group * WIDTH + tile * BLOCK_K, WIDTH - tile * BLOCK_K
        x_mask, q_mask = inside_m[:, None], inside_n[:, None]
        if WIDTH % BLOCK_K != 0:
            x_mask, q_mask = x_mask & (k < left)[None, :], q_mask & (byte < left // PER_BYTE)[None, :]
        x = tl.load(x_ptrs + start, mask=x_mask, other=0).to(product)
        codes = tl.load(q_ptrs + start // PER_BYTE, mask=q_mask, other=0).to(tl.uint32)
        if GROUPS > 1:
            # Asked for before they are needed: the scale by a product, the next zero-point by a step.
            d = tl.load(scale_ptr + grid + group, mask=inside_n, other=0)
            if zero_ptr is not None:
                following = tl.minimum(step + 1, GROUPS * TILES - 1) // TILES
                next_z = tl.load(zero_ptr + grid + following, mask=inside_n, other=0).to(tl.float32)
        if PER_BYTE == 1:
            sums = tl.dot(x, _centred(codes, z, 0, dtype).to(product).T, sums, input_precision="ieee")
        else:
            even, odd = tl.split(x.reshape(BLOCK_M, BLOCK_K // 2, 2))
            low, high = _centred(codes & 15, z, 0, dtype).to(product), _centred(codes & 240, z, 4, dtype).to(product)
            sums = tl.dot(even, low.T, sums, input_precision="ieee")
            sums = tl.dot(odd, high.T, sums, input_precision="ieee")
        if GROUPS > 1:
            if zero_ptr is not None:
                z = next_z
            if tile == TILES - 1:
                total += sums * d[None, :]
                sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if GROUPS == 1:
        total = sums * tl.load(scale_ptr + grid, mask=inside_n, other=0)[None, :]
    store_tile(out_ptr, bias_ptr, total, first_m, first_n, tokens, out_features)


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
    """``Y = (X R) Ŵᵀ + bias``, ``Ŵ = Δ(q - z)``, the product in X's dtype.

    What is multiplied is q - z, which bfloat16 holds exactly up to 256, and Δ follows in float32: a rounding less than
    if Ŵ were rounded to X's dtype, and a multiplication less a weight. Few tokens are bound by the bytes of the weight,
    ``out · in / 2``, read once, whatever their number: many programs, each with several steps of a few KB on their way.
    """
    leading, in_features, out_features = x.shape[:-1], x.shape[-1], qweight.shape[0]
    out = torch.empty((*leading, out_features), dtype=held_dtype(x.dtype), device=x.device)
    if out.numel() == 0:
        return out.to(x.dtype)
    rows = (x if kind is None else rotate(x, kind, seed)).reshape(-1, in_features).contiguous()
    if x.dtype == torch.float64:
        return _linear_double(rows, qweight, scale, zero, bias, bits).reshape(out.shape)
    groups, per_byte = scale.shape[1], in_features // qweight.shape[1]
    width = in_features // groups
    task = Task("weight_only", rows.shape[0], out_features, width, groups, groups > 1, x.element_size(), per_byte, True)
    config = choose(task, x.device)
    launch(
        _weight_only_product,
        (triton.cdiv(rows.shape[0], config.block_m) * triton.cdiv(out_features, config.block_n),),
        {
            "x_ptr": rows,
            "qweight_ptr": qweight.contiguous(),
            "scale_ptr": scale.contiguous(),
            "zero_ptr": None if zero is None else zero.contiguous(),
            "bias_ptr": None if bias is None else bias.contiguous(),
            "out_ptr": out,
            "tokens": rows.shape[0],
            "out_features": out_features,
        },
        {
            "IN_FEATURES": in_features,
            "GROUPS": groups,
            "PER_BYTE": per_byte,
            "OFFSET": code_offset(bits),
            "WIDENS": held_dtype(x.dtype) != x.dtype,
            **config.blocks(),
        },
        warps=config.warps,
        stages=config.stages,
    )
    return out.to(x.dtype)


def _linear_double(
    rows: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    bits: int,
) -> torch.Tensor:
    """By a plain product: activations in float64 are rare, and Triton before 3.9 dies of compiling their ``tl.dot``."""
    centred = dequantize(qweight, torch.ones_like(scale), zero, bits, rows.shape[-1]).double()
    weight = (centred.unflatten(-1, (scale.shape[-1], -1)) * scale.double()[..., None]).flatten(-2)
    return torch.nn.functional.linear(rows, weight, None if bias is None else bias.double())
