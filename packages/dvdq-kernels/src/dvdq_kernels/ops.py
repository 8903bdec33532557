"""The torch operators ``torch.ops.dvdq.*``: plain tensors, numbers and strings in, fresh tensors out.

Each runs a backend's function below autograd and has a fake that gives shapes and dtypes, so that
``torch.compile(fullgraph=True)`` sees one node an operator. The backend is selected when an operator runs, where sizes
are numbers, in a compiled graph too. Operators are defined by schema rather than with ``torch.library.custom_op``,
whose wrapper costs more time than a small linear. Arguments are checked by the callers in
:mod:`dvdq_kernels.functions`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from dvdq_kernels.call import Call, place_of
from dvdq_kernels.registry import operators
from dvdq_kernels.selection import select
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width

_LIBRARY = torch.library.Library("dvdq", "DEF")
_GRID = "Tensor qweight, Tensor scale, Tensor? zero"


def _operator(schema: str, call: Callable[..., Call]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Defines ``schema``, with the decorated function as its fake and as its kernel the function of a backend.

    ``call`` is made of the operator's arguments, but for the backend's name.
    """
    name = schema.partition("(")[0]

    def decorate(fake: Callable[..., Any]) -> Callable[..., Any]:
        _LIBRARY.define(schema)

        def kernel(*args: Any) -> Any:
            *rest, backend = args
            return getattr(operators(select(call(*rest), backend).backend.name), name)(*rest)

        _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"dvdq::{name}", fake, lib=_LIBRARY)
        return fake

    return decorate


def _call_to_quantize_weight(weight: torch.Tensor, bits: int, grid: str, *_: Any) -> Call:
    return Call("quantize_weight", place_of(weight.device), grid, bits=bits)


def _call_to_dequantize(qweight: torch.Tensor, *_: Any) -> Call:
    return Call("dequantize", place_of(qweight.device))


def _call_to_rotate(x: torch.Tensor, *_: Any) -> Call:
    return Call("rotate", place_of(x.device))


def _call_to_rotate_quantize(
    x: torch.Tensor, bits: int, block: int | None, clip: str, kind: str | None, seed: int | None, packed: bool
) -> Call:
    shape = prod(x.shape[:-1]), x.shape[-1], x.shape[-1] if block is None else block
    return Call("rotate_quantize", place_of(x.device), x_bits=bits, shape=shape, packed=packed)


def _call_to_integer_linear(
    codes: torch.Tensor,
    x_scale: torch.Tensor,
    token_sum: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    x_bits: int,
    bits: int,
    *_: Any,
) -> Call:
    packed = codes.dtype == torch.uint8
    in_features = codes.shape[-1] * (2 if packed else 1)
    shape = prod(codes.shape[:-1]), qweight.shape[0], in_features, in_features // x_scale.shape[-1]
    return Call("quantized_linear", place_of(codes.device), None, x_bits, bits, shape, packed)


def _call_to_float_linear(x: torch.Tensor, qweight: torch.Tensor, *_: Any) -> Call:
    shape = prod(x.shape[:-1]), qweight.shape[0], x.shape[-1], x.shape[-1]
    return Call("quantized_linear", place_of(x.device), shape=shape)


@_operator(
    "quantize_weight(Tensor weight, int bits, str grid, int? group_size, bool symmetric, int num_bounds,"
    " float tolerance, str backend) -> (Tensor, Tensor, Tensor)",
    _call_to_quantize_weight,
)
def _quantize_weight(
    weight: torch.Tensor,
    bits: int,
    grid: str,
    group_size: int | None,
    symmetric: bool,
    num_bounds: int,
    tolerance: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out_features, in_features = weight.shape
    groups = count_parts("quantize_weight", in_features, group_size)
    return (
        weight.new_empty((out_features, packed_width("quantize_weight", in_features, bits)), dtype=torch.uint8),
        weight.new_empty((out_features, groups), dtype=torch.float32),
        weight.new_empty((out_features, groups), dtype=torch.int16),
    )


@_operator(f"dequantize({_GRID}, int bits, int in_features, str backend) -> Tensor", _call_to_dequantize)
def _dequantize(
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bits: int,
    in_features: int,
    backend: str,
) -> torch.Tensor:
    return scale.new_empty((qweight.shape[0], in_features))


@_operator("rotate(Tensor x, str kind, int? seed, str backend) -> Tensor", _call_to_rotate)
def _rotate(x: torch.Tensor, kind: str, seed: int | None, backend: str) -> torch.Tensor:
    return x.new_empty(x.shape)


@_operator(
    "rotate_quantize(Tensor x, int bits, int? block, str clip, str? kind, int? seed, bool packed, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _call_to_rotate_quantize,
)
def _rotate_quantize(
    x: torch.Tensor,
    bits: int,
    block: int | None,
    clip: str,
    kind: str | None,
    seed: int | None,
    packed: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


@_operator(
    f"integer_linear(Tensor codes, Tensor x_scale, Tensor token_sum, {_GRID}, Tensor? bias, int x_bits, int bits,"
    " ScalarType dtype, bool emulated, str backend) -> Tensor",
    _call_to_integer_linear,
)
def _integer_linear(
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
    emulated: bool,
    backend: str,
) -> torch.Tensor:
    return codes.new_empty((*codes.shape[:-1], qweight.shape[0]), dtype=dtype)


@_operator(
    f"float_linear(Tensor x, {_GRID}, Tensor? bias, int bits, str? kind, int? seed, str backend) -> Tensor",
    _call_to_float_linear,
)
def _float_linear(
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
    return x.new_empty((*x.shape[:-1], qweight.shape[0]))
