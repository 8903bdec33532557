"""The operators that this backend has, one file each or two."""

from dvdq_kernels.backends.triton.activation import rotate_quantize
from dvdq_kernels.backends.triton.hadamard import rotate
from dvdq_kernels.backends.triton.linear import integer_linear
from dvdq_kernels.backends.triton.weight import dequantize, quantize_weight
from dvdq_kernels.backends.triton.weight_only import float_linear

__all__ = ["dequantize", "float_linear", "integer_linear", "quantize_weight", "rotate", "rotate_quantize"]
