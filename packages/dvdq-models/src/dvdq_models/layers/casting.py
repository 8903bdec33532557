"""Casts that keep every number: none may make a finite value infinite, or a whole tensor zeros."""

from __future__ import annotations

import torch

from dvdq_reference.spec.errors import DvdqError

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What a tensor in full precision may be stored in."""


def cast(operation: str, where: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``tensor`` as ``dtype``, rounded; :func:`check_cast` says what is refused."""
    check_cast(operation, where, tensor, dtype)
    return tensor.to(dtype)


def check_cast(operation: str, where: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse a cast that loses a value.

    Args:
        operation: for errors.
        where: the tensor's name or file.
        tensor: finite.
        dtype: wanted.

    Raises:
        DvdqError: an integer tensor to be made float or the reverse; a value that is beyond the range of ``dtype``, or
            a tensor of numbers that would all become 0. The value is named.
    """
    if tensor.dtype == dtype:
        return
    if not (tensor.is_floating_point() and dtype.is_floating_point):
        raise DvdqError(operation, where=where, expected=f"floats, for {dtype}", got=tensor.dtype)
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return
    low, high = torch.aminmax(tensor)  # one pass, no copy
    largest = low if -low > high else high
    if bool(largest.isfinite()) and not bool(largest.to(dtype).float().isfinite()):
        expected = f"values within {dtype}, up to {torch.finfo(dtype).max:.6g}"
        raise DvdqError(operation, where=where, expected=expected, got=f"{largest.item():.6g}")
    if bool(largest != 0) and not bool(largest.to(dtype).float() != 0):
        expected = f"values that {dtype} tells from 0"
        raise DvdqError(operation, where=where, expected=expected, got=f"at most {largest.item():.6g}")
