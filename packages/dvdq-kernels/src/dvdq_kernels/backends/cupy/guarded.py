"""Memory that ends where it says: whoever reads or writes past it is caught in the act.

A GPU lets a kernel read what lies behind a tensor. Here each tensor is copied between two pages that nobody may touch,
its end against the second, and copied back when the kernel is done.
"""

from __future__ import annotations

import ctypes
import mmap
from types import TracebackType

import torch

_NONE = 0
"""``PROT_NONE``, which the module ``mmap`` does not name."""
_ALIGNMENT = 16
"""What vector loads need, and the bytes behind a tensor that may go unnoticed."""


class Guarded:
    """In a ``with`` block the bytes of a tensor lie at :attr:`address`; at its end they are copied back."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        steps = (stride * (size - 1) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        self._bytes = 0 if tensor.numel() == 0 else (sum(steps) + 1) * tensor.element_size()

    def __enter__(self) -> Guarded:
        pages = -(-max(self._bytes, 1) // mmap.PAGESIZE)
        self._memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        end = self._start + (pages + 1) * mmap.PAGESIZE
        self.address = (end - self._bytes) // _ALIGNMENT * _ALIGNMENT
        ctypes.memmove(self.address, self._tensor.data_ptr(), self._bytes)
        for page in (self._start, end):
            if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, _NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        ctypes.memmove(self._tensor.data_ptr(), self.address, self._bytes)
