"""The sums of activation codes that the zero-points of a grouped weight need."""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch

_THREADS, _BYTES = 256, 16


def code_sums(codes: torch.Tensor, parts: int) -> torch.Tensor:
    """``Σ_{k∈c} v``, float32 ``[tokens, parts]``, of int8 codes ``[tokens, in]`` or uint8 ones, two a byte.

    A part is a multiple of 16 bytes, and codes are contiguous. Exact; bound by the bytes of the codes, read once.
    """
    tokens, chunks = codes.shape[0], codes.shape[1] // parts // _BYTES
    sums = torch.empty((tokens, parts), dtype=torch.float32, device=codes.device)
    # As many lanes as have something to read each time.
    lanes = min(32, 1 << chunks.bit_length() - 1)
    launch(
        Launch(
            "code_sums",
            "code_sums.cu",
            (codes, sums, np.int64(sums.numel()), np.int32(chunks)),
            {"PACKED": codes.dtype == torch.uint8, "LANES": lanes},
            grid=-(-sums.numel() * lanes // _THREADS),
            threads=_THREADS,
            tile=f"{lanes} lanes",
        )
    )
    return sums
