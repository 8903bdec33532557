"""The operators that this backend has, one file each or two."""

from dvdq_kernels.backends.cupy.activation import rotate_quantize
from dvdq_kernels.backends.cupy.hadamard import rotate
from dvdq_kernels.backends.cupy.linear import integer_linear
from dvdq_kernels.backends.cupy.weight import dequantize, quantize_weight
from dvdq_kernels.backends.cupy.weight_only import float_linear

__all__ = ["dequantize", "float_linear", "integer_linear", "quantize_weight", "rotate", "rotate_quantize"]
