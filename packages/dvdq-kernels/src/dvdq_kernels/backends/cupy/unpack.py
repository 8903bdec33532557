"""Weight codes as the bytes that an integer product multiplies, written once before it."""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.layout import is_packed

_THREADS, _BYTES = 256, 16


def unpack(qweight: torch.Tensor, bits: int, in_features: int) -> torch.Tensor:
    """``u = q - 2^(b-1)``, int8 ``[out, in]``, of contiguous codes as stored: a scratch of the caching allocator.

    Bound by bytes: half a byte read and one written a weight (12288×3072: 57 MB).
    """
    u = torch.empty((qweight.shape[0], in_features), dtype=torch.int8, device=qweight.device)
    launch(
        Launch(
            "unpack",
            "unpack.cu",
            (qweight, u, np.int64(qweight.numel())),
            {"PACKED": is_packed(bits), "OFFSET": code_offset(bits)},
            grid=-(-qweight.numel() // (_THREADS * _BYTES)),
            threads=_THREADS,
        )
    )
    return u
