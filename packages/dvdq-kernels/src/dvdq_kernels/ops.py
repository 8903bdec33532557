"""The torch operators ``torch.ops.dvdq.*``: plain tensors, numbers and strings in, fresh tensors out.

Each runs the named backend's function below autograd and has a fake that gives shapes and dtypes, so that
``torch.compile(fullgraph=True)`` sees one node an operator. They are defined by schema rather than with
``torch.library.custom_op``, whose wrapper costs more time than a small linear. Arguments are checked by the callers
in :mod:`dvdq_kernels.functions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dvdq_kernels.registry import operators
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width

_LIBRARY = torch.library.Library("dvdq", "DEF")
_GRID = "Tensor qweight, Tensor scale, Tensor? zero"


def _operator(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Defines ``schema``, with the decorated function as its fake and the named backend's function as its kernel."""
    name = schema.partition("(")[0]

    def decorate(fake: Callable[..., Any]) -> Callable[..., Any]:
        _LIBRARY.define(schema)

        def kernel(*args: Any) -> Any:
            *rest, backend = args
            return getattr(operators(backend), name)(*rest)

        _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"dvdq::{name}", fake, lib=_LIBRARY)
        return fake

    return decorate


@_operator(
    "quantize_weight(Tensor weight, int bits, str grid, int? group_size, bool symmetric, int num_bounds,"
    " float tolerance, str backend) -> (Tensor, Tensor, Tensor)"
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


@_operator(f"dequantize({_GRID}, int bits, int in_features, str backend) -> Tensor")
def _dequantize(
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bits: int,
    in_features: int,
    backend: str,
) -> torch.Tensor:
    return scale.new_empty((qweight.shape[0], in_features))


@_operator("rotate(Tensor x, str kind, int? seed, str backend) -> Tensor")
def _rotate(x: torch.Tensor, kind: str, seed: int | None, backend: str) -> torch.Tensor:
    return x.new_empty(x.shape)


@_operator(
    "rotate_quantize(Tensor x, int bits, int? block, str clip, str? kind, int? seed, str backend)"
    " -> (Tensor, Tensor, Tensor)"
)
def _rotate_quantize(
    x: torch.Tensor, bits: int, block: int | None, clip: str, kind: str | None, seed: int | None, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, in_features = x.shape[:-1], x.shape[-1]
    blocks = 1 if block is None else in_features // block
    return (
        x.new_empty(x.shape, dtype=torch.int8),
        x.new_empty((*tokens, blocks), dtype=torch.float32),
        x.new_empty(tokens, dtype=torch.float32),
    )


@_operator(
    f"integer_linear(Tensor codes, Tensor x_scale, Tensor token_sum, {_GRID}, Tensor? bias, int x_bits, int bits,"
    " ScalarType dtype, bool emulated, str backend) -> Tensor"
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


@_operator(f"float_linear(Tensor x, {_GRID}, Tensor? bias, int bits, str? kind, int? seed, str backend) -> Tensor")
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
