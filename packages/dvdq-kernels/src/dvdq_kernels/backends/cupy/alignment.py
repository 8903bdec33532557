"""Tensors as the kernels' wide loads want them."""

from __future__ import annotations

import torch

ALIGNMENT = 16
"""Bytes of the widest load."""


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor``, or a copy that is contiguous and begins at a multiple of 16 bytes."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
