"""The operators of DVD-Quant, fast: rotation, blockwise quantization, packed weights and exact integer linears.

Every operator is a torch custom operator over a registry of backends; ``backends()`` says what can run here.
"""

from dvdq_kernels.backends_call import backends
from dvdq_kernels.functions import dequantize, quantize_weight, quantized_linear, rotate, rotate_quantize
from dvdq_kernels.quantized import QuantizedActivation, QuantizedWeight

__version__ = "0.1.0"

__all__ = [
    "QuantizedActivation",
    "QuantizedWeight",
    "backends",
    "dequantize",
    "quantize_weight",
    "quantized_linear",
    "rotate",
    "rotate_quantize",
]
