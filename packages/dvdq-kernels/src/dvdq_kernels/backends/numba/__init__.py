"""Compiled loops for a CPU, where many small operations of PyTorch would cost more than their arithmetic."""

from dvdq_kernels.backends.numba.weight import quantize_weight

__all__ = ["quantize_weight"]
