"""Which kernels a linear would start, and why: asked of the operators themselves, on tensors that hold nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch

from dvdq_kernels import ops  # noqa: F401  (defines torch.ops.dvdq)
from dvdq_kernels.activation_codes import is_packable
from dvdq_kernels.backend import Backend, Step
from dvdq_kernels.call import Call, Place, place_of
from dvdq_kernels.registry import operators
from dvdq_kernels.selection import Selection, packs, select
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule


@dataclass(frozen=True)
class Plan:
    """What one call of :func:`~dvdq_kernels.quantized_linear` runs.

    Attributes:
        backend: the name of the one whose product it is.
        refused: why each backend that is preferred to it cannot run, by name.
        reason: why it is preferred to the others: what was measured, or the rule.
        kernels: what is started, in order, each with its tiles and where they come from.
    """

    backend: str
    refused: dict[str, str]
    reason: str
    kernels: tuple[str, ...]


def plan_linear(
    tokens: int,
    out_features: int,
    in_features: int,
    weight: WeightRule,
    activation: ActivationRule | None,
    rotation: Rotation | None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    capability: int | None = None,
    device: torch.device | None = None,
) -> Plan:
    """The plan of a linear on this machine, or on a GPU that need not be there.

    Args:
        tokens: rows of the activations.
        out_features: rows of the weight.
        in_features: input channels.
        weight: how the weight is stored.
        activation: how activations are quantized; None keeps them (W4A16).
        rotation: R.
        dtype: of the activations and the output.
        capability: a compute capability, e.g. 90, to plan for such a GPU, of which no measurement is known, with those
            of Triton and CuPy that are installed; None is this machine.
        device: of this machine; None is its GPU, or its CPU if it has none.

    Raises:
        DvdqError: sizes that do not divide, or a GPU that no backend here has kernels for.
    """
    operation = "plan_linear"
    if capability is not None and capability < 80:
        raise DvdqError(operation, where="capability", expected="a compute capability from 80 on", got=capability)
    if capability is None:
        place = place_of(device or torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    else:
        place = Place("cuda", capability, here=False)

    x = torch.empty(tokens, in_features, dtype=dtype, device="meta")
    groups = count_parts(operation, in_features, weight.group_size)
    width = packed_width(operation, in_features, weight.bits)
    qweight = torch.empty(out_features, width, dtype=torch.uint8, device="meta")
    scale = torch.empty(out_features, groups, device="meta")
    zero = None if weight.symmetric else scale.to(torch.int16)
    bias = torch.empty(out_features, dtype=dtype, device="meta")
    grid = qweight, scale, zero, bias
    kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
    linear, shape = "quantized_linear", (tokens, out_features, in_features)
    if activation is None:
        product = select(Call(linear, place, shape=(*shape, in_features), dtype=dtype))
        return _plan(place, product, [(product.backend, "float_linear", (x, *grid, weight.bits, kind, seed))])

    bits, block = activation.bits, activation.block or in_features
    count_parts(operation, in_features, activation.block)
    packed = is_packable(in_features, bits) and packs(place, bits, "auto", dtype)
    quantizer = select(Call("rotate_quantize", place, None, bits, None, (tokens, in_features, block), packed, dtype))
    product = select(Call(linear, place, None, bits, weight.bits, (*shape, block), packed, dtype))
    quantizing = x, bits, activation.block, activation.clip, kind, seed, packed
    codes = torch.ops.dvdq.rotate_quantize(*quantizing, "auto")
    multiplying = *codes, *grid, bits, weight.bits, dtype
    steps: list[_Asked] = [
        (quantizer.backend, "rotate_quantize", quantizing),
        (product.backend, "integer_linear", multiplying),
    ]
    return _plan(place, product, steps)


_Asked = tuple[Backend, str, tuple[Any, ...]]
"""A backend, the name of an operator, and its arguments on the meta device."""


def _plan(place: Place, product: Selection, asked: list[_Asked]) -> Plan:
    """What is started, last the product; another backend's kernels tell whose they are."""
    kernels: list[str] = []
    for backend, calls in groupby(asked, key=itemgetter(0)):
        whose = "" if backend is product.backend else f"{backend.name}: "
        steps = [Step(getattr(operators(backend.name), name), arguments) for _, name, arguments in calls]
        kernels += [whose + kernel for kernel in backend.describe(place, steps)]
    return Plan(product.backend.name, dict(product.refused), product.reason, tuple(kernels))
