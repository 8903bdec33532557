"""Which kernels a linear would start, and why: asked of the operators themselves, on tensors that hold nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dvdq_kernels.registry import is_installed, operators, select
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule


@dataclass(frozen=True)
class Plan:
    """What one call of :func:`~dvdq_kernels.quantized_linear` runs.

    Attributes:
        backend: its name.
        refused: why each backend that is preferred to it cannot run, by name.
        kernels: what it starts, in order, each with its tiles and where they come from.
    """

    backend: str
    refused: dict[str, str]
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
        capability: a compute capability, e.g. 90, to plan for Triton on such a GPU; None is this machine.

    Raises:
        DvdqError: sizes that do not divide, or a GPU that Triton has no kernels for.
    """
    refused: dict[str, str] = {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if capability is None:
        selection = select("quantized_linear", "auto", device)
        refused = dict(selection.refused)
        if selection.backend.name != "triton":
            return Plan(selection.backend.name, refused, ("operations of PyTorch",))
    elif capability < 80 or not is_installed("triton"):
        expected = "Triton, and a compute capability from 80 on"
        raise DvdqError("plan_linear", where="capability", expected=expected, got=capability)

    from dvdq_kernels.backends.triton.launch import device_name_of, recording, target_of

    triton = operators("triton")
    x = torch.empty(tokens, in_features, dtype=dtype, device="meta")
    groups = count_parts("plan_linear", in_features, weight.group_size)
    width = packed_width("plan_linear", in_features, weight.bits)
    qweight = torch.empty(out_features, width, dtype=torch.uint8, device="meta")
    scale = torch.empty(out_features, groups, device="meta")
    zero = None if weight.symmetric else scale.to(torch.int16)
    bias = torch.empty(out_features, dtype=dtype, device="meta")
    kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
    place = (target_of(device), device_name_of(device)) if capability is None else (capability, None)
    with recording(*place) as record:
        if activation is None:
            triton.float_linear(x, qweight, scale, zero, bias, weight.bits, kind, seed)
        else:
            codes = triton.rotate_quantize(x, activation.bits, activation.block, activation.clip, kind, seed)
            bits = activation.bits, weight.bits
            triton.integer_linear(*codes, qweight, scale, zero, bias, *bits, dtype, False)
    return Plan("triton", refused, tuple(launch.description for launch in record.launches))
