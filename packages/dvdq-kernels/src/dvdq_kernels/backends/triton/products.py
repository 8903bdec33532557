"""The integer product of activation codes and weight codes, with everything else of a linear in its epilogue."""

import triton
import triton.language as tl


@triton.jit
def tile_of(
    program: tl.tensor,
    tokens: tl.tensor,
    out_features: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP_M: tl.constexpr,
) -> tl.tensor:
    """Where a program's tile begins: ``GROUP_M`` rows of tiles at a time, whose operands stay in L2."""
    across = tl.cdiv(out_features, BLOCK_N)
    top = program // (GROUP_M * across) * GROUP_M
    height = tl.minimum(tl.cdiv(tokens, BLOCK_M) - top, GROUP_M)
    inside = program % (GROUP_M * across)
    return (top + inside % height) * BLOCK_M, inside // height * BLOCK_N


@triton.jit
def _add_product(sums: tl.tensor, v: tl.tensor, weight: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """``sums + v uᵀ`` in int32, for int8 ``v [M, K]`` and a weight ``[N, ·]`` of u (int8) or of stored codes (uint8).

    Even channels are the low halves of packed bytes and odd ones the high halves, so v is split into those two rather
    than the weight, of which there is far more where this is used, joined. A half stays in the upper half of its byte,
    which saves shifting its sign: it counts ``16 u``.
    """
    OFFSET: tl.constexpr = 1 << (BITS - 1)
    if weight.dtype == tl.int8:
        sums = tl.dot(v, weight.T, sums, out_dtype=tl.int32)
    elif BITS > 4:
        sums = tl.dot(v, (weight - OFFSET).to(tl.int8, bitcast=True).T, sums, out_dtype=tl.int32)
    else:
        even, odd = tl.split(v.reshape(v.shape[0], v.shape[1] // 2, 2))
        sums = tl.dot(even, ((weight << 4) - 16 * OFFSET).to(tl.int8, bitcast=True).T, sums, out_dtype=tl.int32)
        sums = tl.dot(odd, ((weight & 240) - 16 * OFFSET).to(tl.int8, bitcast=True).T, sums, out_dtype=tl.int32)
    return sums


@triton.jit
def integer_product(
    codes_ptr: tl.tensor,
    x_scale_ptr: tl.tensor,
    code_sum_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    tokens: tl.tensor,
    out_features: tl.tensor,
    IN_FEATURES: tl.constexpr,
    BLOCKS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
) -> None:
    """``Y[t,n] = Σ_c s[t,c] Δ[n,c] (Σ_{k∈c} v·u - (z[n,c] - 2^(b-1)) Σ_{k∈c} v) + bias[n]``, one tile a program.

    ``codes`` int8 ``[tokens, IN_FEATURES]``, ``x_scale`` ``[tokens, BLOCKS]``; ``weight`` int8 u ``[out, IN_FEATURES]``
    or uint8 codes as stored; ``scale``, ``zero`` ``[out, GROUPS]``. The c are the parts of ``WIDTH`` channels that
    share both scales. ``code_sum`` is the token sum ``[tokens]`` for one group, else ``Σ_{k∈c} v`` ``[tokens, parts]``.

    Integers are added up within a part, floats across parts. Without zero-points ``zero`` is None.
    """
    PARTS: tl.constexpr = IN_FEATURES // WIDTH
    TILES: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K
    SUMS: tl.constexpr = 1 if GROUPS == 1 else PARTS
    OFFSET: tl.constexpr = 1 << (BITS - 1)
    DECODES: tl.constexpr = weight_ptr.dtype.element_ty == tl.uint8
    PER_BYTE: tl.constexpr = 2 if DECODES and BITS <= 4 else 1
    UNIT: tl.constexpr = 0.0625 if PER_BYTE == 2 else 1.0
    BYTES: tl.constexpr = IN_FEATURES // PER_BYTE
    first_m, first_n = tile_of(tl.program_id(0), tokens, out_features, BLOCK_M, BLOCK_N, GROUP_M)
    m, n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    k, byte = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_K // PER_BYTE)
    inside_m, inside_n = m < tokens - first_m, n < out_features - first_n
    # 64 bits for what a whole tile shares, 32 inside it. Where tokens are many, operands past the end repeat the last
    # row rather than being masked.
    near_m, near_n = tl.minimum(m, tokens - 1 - first_m), tl.minimum(n, out_features - 1 - first_n)
    first_m, first_n = first_m.to(tl.int64), first_n.to(tl.int64)
    v_ptrs = codes_ptr + first_m * IN_FEATURES + (near_m[:, None] * IN_FEATURES + k[None, :])
    w_ptrs = weight_ptr + first_n * BYTES + (near_n[:, None] * BYTES + byte[None, :])
    s_ptrs = x_scale_ptr + first_m * BLOCKS + m * BLOCKS
    r_ptrs = code_sum_ptr + first_m * SUMS + m * SUMS
    d_ptrs = scale_ptr + first_n * GROUPS + n * GROUPS
    if zero_ptr is not None:
        z_ptrs = zero_ptr + first_n * GROUPS + n * GROUPS
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for step in tl.range(PARTS * TILES):
        c, tile = step // TILES, step % TILES
        start, left = c * WIDTH + tile * BLOCK_K, WIDTH - tile * BLOCK_K
        if not DECODES and WIDTH % BLOCK_K == 0:
            v, weight = tl.load(v_ptrs + start), tl.load(w_ptrs + start)
        else:
            v_mask, w_mask = inside_m[:, None], inside_n[:, None]
            if WIDTH % BLOCK_K != 0:
                v_mask, w_mask = v_mask & (k < left)[None, :], w_mask & (byte < left // PER_BYTE)[None, :]
            v = tl.load(v_ptrs + start, mask=v_mask, other=0)
            weight = tl.load(w_ptrs + start // PER_BYTE, mask=w_mask, other=0)
        if PARTS == 1:
            sums = _add_product(sums, v, weight, BITS)
        else:
            # Asked for before the product, so that they arrive while it runs.
            group = c // (PARTS // GROUPS)
            if BLOCKS > 1:
                s = tl.load(s_ptrs + c // (PARTS // BLOCKS), mask=inside_m, other=0)
            if GROUPS > 1:
                d = tl.load(d_ptrs + group, mask=inside_n, other=0)
                if zero_ptr is not None:
                    r = tl.load(r_ptrs + c, mask=inside_m, other=0)
                    z = tl.load(z_ptrs + group, mask=inside_n, other=0).to(tl.float32) - OFFSET
            sums = _add_product(sums, v, weight, BITS)
            if tile == TILES - 1:
                part = sums.to(tl.float32) * UNIT
                if GROUPS > 1:
                    if zero_ptr is not None:
                        part -= r[:, None] * z[None, :]
                    part *= d[None, :]
                if BLOCKS > 1:
                    part *= s[:, None]
                total += part
                sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    if PARTS == 1:
        total = sums.to(tl.float32) * UNIT
    if BLOCKS == 1:
        total *= tl.load(s_ptrs, mask=inside_m, other=0)[:, None]
    if GROUPS == 1:
        if zero_ptr is not None:
            z = tl.load(z_ptrs, mask=inside_n, other=0).to(tl.float32) - OFFSET
            total -= tl.load(r_ptrs, mask=inside_m, other=0)[:, None] * z[None, :]
        total *= tl.load(d_ptrs, mask=inside_n, other=0)[None, :]
    store_tile(out_ptr, bias_ptr, total, first_m, first_n, tokens, out_features)


@triton.jit
def store_tile(
    out_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    total: tl.tensor,
    first_m: tl.tensor,
    first_n: tl.tensor,
    tokens: tl.tensor,
    out_features: tl.tensor,
) -> None:
    """``total + bias`` to the tile of ``out [tokens, out_features]`` that starts at ``first_m, first_n`` (int64)."""
    m = tl.arange(0, total.shape[0])
    n = tl.arange(0, total.shape[1])
    inside = n < out_features - first_n
    if bias_ptr is not None:
        total += tl.load(bias_ptr + first_n + n, mask=inside, other=0).to(total.dtype)[None, :]
    out_ptrs = out_ptr + first_m * out_features + first_n + (m[:, None] * out_features + n[None, :])
    tl.store(out_ptrs, total.to(out_ptr.dtype.element_ty), mask=(m < tokens - first_m)[:, None] & inside[None, :])


@triton.jit
def code_sums(
    codes_ptr: tl.tensor,
    sum_ptr: tl.tensor,
    tokens: tl.tensor,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
) -> None:
    """``Σ_{k∈c} v``, float32 ``[tokens, PARTS]``, of ``codes`` int8 ``[tokens, PARTS · WIDTH]``; exact.

    One program sums ``ROWS`` tokens of one part, ``SPAN`` channels at a time.
    """
    program = tl.program_id(0)
    c = program % PARTS
    row = (program // PARTS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, SPAN)
    total = tl.zeros((ROWS, SPAN), tl.int32)
    for start in tl.range(0, WIDTH, SPAN):
        inside = (row < tokens)[:, None] & (k < WIDTH - start)[None, :]
        v = tl.load(codes_ptr + row[:, None] * (PARTS * WIDTH) + (c * WIDTH + start + k)[None, :], inside, other=0)
        total += v.to(tl.int32)
    tl.store(sum_ptr + row * PARTS + c, tl.sum(total, axis=1).to(tl.float32), mask=row < tokens)
