"""The operators that this backend has, one file each or two."""

from dvdq_kernels.backends.torch.activation import rotate_quantize
from dvdq_kernels.backends.torch.hadamard import rotate
from dvdq_kernels.backends.torch.linear import float_linear, integer_linear
from dvdq_kernels.backends.torch.weight import dequantize, quantize_weight

__all__ = ["dequantize", "float_linear", "integer_linear", "quantize_weight", "rotate", "rotate_quantize"]
