"""Tensor maps: what the copy engine of a Hopper GPU (TMA) knows of a matrix of bytes."""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.installation import install
from dvdq_reference.spec.errors import DvdqError

_BYTES = 128
_TensorMap = np.ndarray[tuple[int], np.dtype[np.void]]
"""An array of one structure, which CuPy passes by value."""


def tensor_map(tensor: torch.Tensor, box: tuple[int, int], swizzled: bool) -> _TensorMap:
    """Boxes of ``box`` = (rows, columns) of a contiguous matrix of 1-byte elements, with zeros beyond its edges.

    It is passed to a kernel by value, as ``TENSOR_MAP``. A row and the address are multiples of 16 bytes; a box has at
    most 256 rows and, if its 16-byte chunks are to be swizzled over 128 bytes, at most 128 columns.

    Raises:
        DvdqError: cuda-bindings is not installed, or the driver refuses.
    """
    if tensor.device.type != "cuda":
        return _emulated(tensor, box, swizzled)
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise DvdqError("tensor_map", expected=f"cuda-bindings: {install()}", got=str(error)) from error
    status, encoded = driver.cuTensorMapEncodeTiled(
        driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT8,
        2,
        tensor.data_ptr(),
        [driver.cuuint64_t(tensor.shape[1]), driver.cuuint64_t(tensor.shape[0])],
        [driver.cuuint64_t(tensor.shape[1])],
        [driver.cuuint32_t(box[1]), driver.cuuint32_t(box[0])],
        [driver.cuuint32_t(1), driver.cuuint32_t(1)],
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B
        if swizzled
        else driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_NONE,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DvdqError("tensor_map", expected="cuTensorMapEncodeTiled to succeed", got=status)
    return _words([int(word) for word in encoded.opaque])


def _emulated(tensor: torch.Tensor, box: tuple[int, int], swizzled: bool) -> _TensorMap:
    """As ``emulation_hopper.cuh`` reads it; of a meta tensor the address is 0."""
    address = 0 if tensor.is_meta else tensor.data_ptr()
    return _words([address, tensor.shape[1], tensor.shape[0], box[1], box[0], 128 if swizzled else 0])


def _words(words: list[int]) -> _TensorMap:
    whole = np.zeros(_BYTES // 8, np.uint64)
    whole[: len(words)] = words
    return whole.view(f"V{_BYTES}")
