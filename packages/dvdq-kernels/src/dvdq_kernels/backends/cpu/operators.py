"""One file an operator, or two that share their loops."""

from dvdq_kernels.backends.cpu.activation import rotate, rotate_quantize
from dvdq_kernels.backends.cpu.linear import float_linear, integer_linear
from dvdq_kernels.backends.cpu.weight import dequantize, quantize_weight

__all__ = ["dequantize", "float_linear", "integer_linear", "quantize_weight", "rotate", "rotate_quantize"]
