"""The operators that this backend has, one file each or two."""

from dvdq_kernels.backends.numba.weight import quantize_weight

__all__ = ["quantize_weight"]
