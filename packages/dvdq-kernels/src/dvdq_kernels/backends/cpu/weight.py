"""Weights to packed codes and back (Eq. 1, 2): chunks of rows, on as many threads as torch uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from dvdq_kernels.backends.cpu.compilation import kernel
from dvdq_kernels.backends.cpu.instruction_sets import at_hand
from dvdq_kernels.backends.cpu.loops import encode_rows, refine_rows, span_rows
from dvdq_kernels.backends.cpu.packing import stored_bits
from dvdq_kernels.backends.cpu.weight_only import write_dequantize
from dvdq_reference.spec.bits import code_offset, unsigned_range
from dvdq_reference.spec.layout import is_packed, packed_width
from dvdq_reference.spec.recipe import BGR_MAX_ROUNDS, least_code

_CHUNK = 2**17
"""Elements that a thread sorts at a time: half a megabyte in float32, which stays in its cache."""
_WORTH = 2**18
"""Elements that a thread has to decode, to be worth its start."""


def quantize_weight(
    weight: torch.Tensor,
    bits: int,
    grid: str,
    group_size: int | None,
    symmetric: bool,
    num_bounds: int,
    tolerance: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes uint8, Δ float32 and z int16, both ``[out, groups]``."""
    out_features, in_features = weight.shape
    groups = 1 if group_size is None else in_features // group_size
    levels = unsigned_range(bits)[1]
    least = least_code(grid)
    qweight = torch.empty(out_features, packed_width("quantize_weight", in_features, bits), dtype=torch.uint8)
    scale = torch.empty(out_features, groups, dtype=torch.float32)
    zero = torch.empty(out_features, groups, dtype=torch.int16)
    size = max(1, _CHUNK // in_features)

    def quantize_rows(part: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> None:
        rows = part.to(torch.promote_types(part.dtype, torch.float32)).contiguous().numpy()
        parts = rows.reshape(-1, in_features // groups)
        steps, offsets = scale.view(-1).numpy(), zero.view(-1).numpy()
        if grid in ("bgr", "bgr-symmetric"):
            ordered = np.sort(np.abs(parts) if symmetric else parts, axis=1)
            refine_rows(ordered, levels, num_bounds, tolerance, BGR_MAX_ROUNDS, symmetric, steps, offsets)
        else:
            span_rows(parts, levels, symmetric, steps, offsets)
        encode_rows(parts, steps, offsets, least, levels, is_packed(bits), codes.view(-1).numpy())

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        split = (tensor.split(size) for tensor in (weight, qweight, scale, zero))
        for _ in pool.map(quantize_rows, *split):
            pass
    return qweight, scale, zero


def dequantize(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
) -> torch.Tensor:
    """``Ŵ = Δ(q - z)`` float32 ``[out, in]``."""
    rows, groups = scale.shape
    out = torch.empty(rows, in_features)
    inputs = [None if tensor is None else tensor.contiguous() for tensor in (qweight, scale, zero)]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (*inputs, out)]
    run = kernel(write_dequantize, at_hand(), stored=stored_bits(bits))
    sizes = in_features, groups, code_offset(bits)
    run((*addresses, *sizes), rows, 1, _WORTH // in_features + 1)
    return out
