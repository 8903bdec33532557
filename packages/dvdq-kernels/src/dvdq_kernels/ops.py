"""The torch operators ``torch.ops.dvdq.*``: plain tensors, numbers and strings in, fresh tensors out.

Each is stated once, as a function of its name and parameters that gives shapes and dtypes: that is its schema and its
fake, so that ``torch.compile(fullgraph=True)`` sees one node an operator. A backend's function has the same parameters
but for the last, the backend's name, and runs below autograd. Which backend it is is decided when an operator runs,
where sizes are numbers, in a compiled graph too, and remembered. Operators are defined by schema rather than with
``torch.library.custom_op``, whose wrapper costs more time than a small linear. Arguments are checked by the callers in
:mod:`dvdq_kernels.functions`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, cast

import torch

from dvdq_kernels.call import Call, place_of
from dvdq_kernels.registry import operators, remembered
from dvdq_kernels.selection import select
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width

_LIBRARY = torch.library.Library("dvdq", "DEF")

OPERATORS: dict[str, Callable[..., Any]] = {}
"""The statement of each, by name."""


_KERNELS: dict[str, Callable[..., Any]] = {}
"""What each runs below torch's dispatcher."""


def run(operator: str, x: torch.Tensor, *args: Any) -> Any:
    """``torch.ops.dvdq.<operator>(x, *args)``, past torch's dispatcher where it has nothing to do.

    It costs some 25 µs, a third of a small linear on a CPU, and serves compilers, gradients, modes, and tensors that
    stand for others.
    """
    if (
        torch.compiler.is_dynamo_compiling()
        or torch.is_grad_enabled()
        or type(x) is not torch.Tensor
        or x.is_meta
        or torch._C._len_torch_dispatch_stack()
    ):
        return getattr(torch.ops.dvdq, operator)(x, *args)
    return _KERNELS[operator](x, *args)


@remembered
def _function(operator: str, call: Call, backend: str) -> Callable[..., Any]:
    """The function that runs ``call``: that of the backend that it gets."""
    return cast(Callable[..., Any], getattr(operators(select(call, backend).backend.name), operator))


def _operator(call: Callable[..., Call]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Defines the operator that the decorated function states.

    ``call`` says what a backend is asked, from those arguments that it names.
    """

    def decorate(statement: Callable[..., Any]) -> Callable[..., Any]:
        name = statement.__name__
        parameters = list(signature(statement).parameters)
        needed = [parameters.index(parameter) for parameter in signature(call).parameters]

        def kernel(*args: Any) -> Any:
            return _function(name, call(*map(args.__getitem__, needed)), args[-1])(*args[:-1])

        _KERNELS[name] = kernel
        _LIBRARY.define(name + torch.library.infer_schema(statement, mutates_args=()))
        _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"dvdq::{name}", statement, lib=_LIBRARY)
        OPERATORS[name] = statement
        return statement

    return decorate


def _call_to_quantize_weight(weight: torch.Tensor, bits: int, grid: str) -> Call:
    return Call("quantize_weight", place_of(weight.device), grid, bits=bits, dtype=weight.dtype)


@_operator(_call_to_quantize_weight)
def quantize_weight(
    weight: torch.Tensor,
    bits: int,
    grid: str,
    group_size: int | None,
    symmetric: bool,
    num_bounds: int,
    tolerance: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes uint8, Δ float32 and z int16, both ``[out, groups]``."""
    out_features, in_features = weight.shape
    groups = count_parts("quantize_weight", in_features, group_size)
    return (
        weight.new_empty((out_features, packed_width("quantize_weight", in_features, bits)), dtype=torch.uint8),
        weight.new_empty((out_features, groups), dtype=torch.float32),
        weight.new_empty((out_features, groups), dtype=torch.int16),
    )


@_operator(lambda qweight: Call("dequantize", place_of(qweight.device)))
def dequantize(
    qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int, backend: str
) -> torch.Tensor:
    """``Ŵ = Δ(q - z)`` float32 ``[out, in]``."""
    return scale.new_empty((qweight.shape[0], in_features))


@_operator(lambda x: Call("rotate", place_of(x.device), dtype=x.dtype))
def rotate(x: torch.Tensor, kind: str, seed: int | None, backend: str) -> torch.Tensor:
    """``X R`` in the dtype of ``x``."""
    return x.new_empty(x.shape)


def _call_to_quantize(x: torch.Tensor, bits: int, block: int | None, packed: bool) -> Call:
    in_features = x.shape[-1]
    shape = x.numel() // in_features, in_features, in_features if block is None else block
    return Call("rotate_quantize", place_of(x.device), None, bits, None, shape, packed, x.dtype)


@_operator(_call_to_quantize)
def rotate_quantize(
    x: torch.Tensor,
    bits: int,
    block: int | None,
    clip: str,
    kind: str | None,
    seed: int | None,
    packed: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes int8 ``[..., in]`` or packed uint8 ``[..., in / 2]``, scale float32 ``[..., blocks]``, token sum float32
    ``[...]``.
    """
    tokens, in_features = x.shape[:-1], x.shape[-1]
    blocks = 1 if block is None else in_features // block
    if packed:
        codes = x.new_empty((*tokens, in_features // 2), dtype=torch.uint8)
    else:
        codes = x.new_empty(x.shape, dtype=torch.int8)
    return (
        codes,
        x.new_empty((*tokens, blocks), dtype=torch.float32),
        x.new_empty(tokens, dtype=torch.float32),
    )


def _call_to_multiply_codes(
    codes: torch.Tensor, x_scale: torch.Tensor, qweight: torch.Tensor, x_bits: int, bits: int, dtype: torch.dtype
) -> Call:
    packed, width = codes.dtype == torch.uint8, codes.shape[-1]
    in_features = 2 * width if packed else width
    shape = codes.numel() // width, qweight.shape[0], in_features, in_features // x_scale.shape[-1]
    return Call("quantized_linear", place_of(codes.device), None, x_bits, bits, shape, packed, dtype)


@_operator(_call_to_multiply_codes)
def integer_linear(
    codes: torch.Tensor,
    x_scale: torch.Tensor,
    token_sum: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    x_bits: int,
    bits: int,
    dtype: torch.dtype,
    backend: str,
) -> torch.Tensor:
    """``Y[t,n] = Σ_c s[t,c] Δ[n,c] (Σ_{k∈c} v·u - (z[n,c] - 2^(b-1)) Σ_{k∈c} v) + bias``, ``[..., out]`` of ``dtype``,
    c the parts of a row that share both scales.
    """
    return codes.new_empty((*codes.shape[:-1], qweight.shape[0]), dtype=dtype)


def _call_to_multiply_floats(x: torch.Tensor, qweight: torch.Tensor) -> Call:
    in_features = x.shape[-1]
    shape = x.numel() // in_features, qweight.shape[0], in_features, in_features
    return Call("quantized_linear", place_of(x.device), shape=shape, dtype=x.dtype)


@_operator(_call_to_multiply_floats)
def float_linear(
    x: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    bits: int,
    kind: str | None,
    seed: int | None,
    backend: str,
) -> torch.Tensor:
    """``Y = (X R) Ŵᵀ + bias``, ``[..., out]`` in the dtype of ``x``."""
    return x.new_empty((*x.shape[:-1], qweight.shape[0]))
