"""Activations of any of three dtypes as float32 in registers, and back."""

from __future__ import annotations

import torch
from llvmlite import ir

from dvdq_kernels.backends.cpu.code import F16, F32, F64, I16, I32, Value
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet

ELEMENTS: dict[torch.dtype, ir.Type] = {torch.float32: F32, torch.float16: F16, torch.bfloat16: I16, torch.float64: F64}
"""How memory of a dtype is read; bfloat16 is the upper half of a float32."""


def readable(x: torch.Tensor, instructions: InstructionSet) -> torch.Tensor:
    """``[..., in]`` as rows whose values lie side by side, in a dtype that a kernel reads; a view where that is one."""
    if x.dtype not in instructions.dtypes and x.dtype != torch.float64:
        x = x.to(torch.float32)
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def widened(value: Value) -> Value:
    """What was loaded, as float32 (float64 stays)."""
    if value.type == I16 or getattr(value.type, "element", None) == I16:
        return (value.to(I32, signed=False) << 16).bits_as(_like(value, F32))
    return value if _element(value) in (F32, F64) else value.to(F32)


def narrowed(value: Value, element: ir.Type) -> Value:
    """Float32 as what is stored, rounded to the nearest, half to even; a NaN stays one."""
    if element in (F32, F64):
        return value
    if element == F16:
        return value.to(F16)
    bits = value.bits_as(_like(value, I32))
    odd = (bits >> 16) & 1
    rounded = (bits + odd + 0x7FFF) >> 16
    # Rounding could carry a NaN's bits into those of an infinity or of zero.
    nan = value.code.constant(bits.type, 0x7F800000) < (bits & 0x7FFFFFFF)
    return nan.select((bits >> 16) | 0x40, rounded).to(I16)


def _element(value: Value) -> ir.Type:
    return value.type.element if isinstance(value.type, ir.VectorType) else value.type


def _like(value: Value, element: ir.Type) -> ir.Type:
    return ir.VectorType(element, value.lanes) if isinstance(value.type, ir.VectorType) else element
