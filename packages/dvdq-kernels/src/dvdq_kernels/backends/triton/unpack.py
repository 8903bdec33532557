"""Weight codes as the bytes that an integer product multiplies, written once before it."""

import torch
import triton
import triton.language as tl

from dvdq_kernels.backends.triton.launch import launch
from dvdq_reference.spec.layout import is_packed

_BYTES = 4096
"""Stored bytes a program turns: 32 for each of 128 threads, two vectors in flight."""


@triton.jit
def _unpack(
    qweight_ptr: tl.tensor, out_ptr: tl.tensor, size: tl.tensor, BITS: tl.constexpr, BYTES: tl.constexpr
) -> None:
    """``u = q - 2^(b-1)``, int8 and one after the other, of ``size`` bytes of stored codes, ``BYTES`` a program.

    Rows hold whole bytes, so that nothing of their length matters here.
    """
    OFFSET: tl.constexpr = 1 << (BITS - 1)
    first = tl.program_id(0).to(tl.int64) * BYTES
    i = tl.arange(0, BYTES)
    stored = tl.load(qweight_ptr + first + i, mask=i < size - first, other=0)
    if BITS > 4:
        tl.store(out_ptr + first + i, (stored - OFFSET).to(tl.int8, bitcast=True), mask=i < size - first)
    else:
        pair = tl.join((stored & 15) - OFFSET, (stored >> 4) - OFFSET).to(tl.int8, bitcast=True)
        j = tl.arange(0, 2 * BYTES)
        tl.store(out_ptr + 2 * first + j, pair.reshape(2 * BYTES), mask=j < 2 * (size - first))


def unpack(qweight: torch.Tensor, bits: int, in_features: int) -> torch.Tensor:
    """``u = q - 2^(b-1)``, int8 ``[out, in]``, of contiguous codes as stored: a scratch of the caching allocator.

    Bound by bytes: half a byte read and one written a weight (12288×3072: 57 MB).
    """
    u = torch.empty((qweight.shape[0], in_features), dtype=torch.int8, device=qweight.device)
    assert u.numel() == qweight.numel() * (2 if is_packed(bits) else 1)
    launch(
        _unpack,
        (triton.cdiv(qweight.numel(), _BYTES),),
        {"qweight_ptr": qweight, "out_ptr": u, "size": qweight.numel()},
        {"BITS": bits, "BYTES": _BYTES},
    )
    return u
