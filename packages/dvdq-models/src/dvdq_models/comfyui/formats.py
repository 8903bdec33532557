"""What a quantized linear is in ComfyUI's files: its tensors, how they are made, and what ``comfy_quant`` says.

``<layer>.comfy_quant`` is JSON as bytes. With it stand beside ``<layer>.weight``, whose codes of four bits lie two a
byte, the even channel low:

========================  ============================================  ===========================================
``convrot_w4a4``          ``weight`` int8 ``[out, in / 2]``, signed     ``weight_scale`` float32 ``[out]``
``int8_tensorwise``       ``weight`` int8 ``[out, in]``, signed         ``weight_scale`` float32 ``[out, 1]``
``awq_w4a16``             ``weight`` int8 ``[out, in / 2]``, unsigned   ``weight_scale``, ``weight_zeros`` bfloat16
                                                                        ``[in / 64, out]``
========================  ============================================  ===========================================

The first two are rotated in blocks, the weight here and the activations there: ``W H ≈ s u``. The third is
``W ≈ s (q - 8) + o`` in groups of 64 channels, and activations stay as they are. ``asym_w4a8_int8`` has :mod:`a file of
its own <dvdq_models.comfyui.codebook>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from dvdq_kernels import quantize_weight
from dvdq_kernels.feedback import encode_with_feedback, error_feedback
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.comfyui.bases import SIZES, relabel, rotate, rotated_moments
from dvdq_models.comfyui.codebook import Codebook
from dvdq_reference.spec.bits import code_offset, unsigned_range
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ROTATION_BLOCK, Grid, Rotation, Rounding, WeightRule

OPERATION = "export"
FormatName = Literal["convrot_w4a4", "asym_w4a8_int8", "int8_tensorwise"]
"""What linears with quantized activations can be written in."""
LinearDtype = Literal["int4", "int8"]
"""Width of the activations that ``convrot_w4a4`` multiplies with."""
PACKED_STEP = 64
"""``convrot_w4a4`` takes multiples of so many input channels."""
AWQ_GROUP = 64
"""Channels that share a scale and an offset in ``awq_w4a16``."""
_CHUNK = 2**24
"""Elements of a weight that are quantized at a time: the float32 copies of a chunk, not of the weight."""


class Encoding(Protocol):
    """How one linear is written."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What ``comfy_quant`` says; ``format`` is in it."""
        ...

    def types(self, out_features: int, in_features: int) -> dict[str, TensorType]:
        """The tensors beside ``comfy_quant``, by their names below the layer's."""
        ...

    def encode(
        self, weight: torch.Tensor, backend: str = "auto", moments: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """These tensors, of a weight ``[out, in]`` in any float dtype, finite; rounded by the inputs' second moments,
        ``[in, in]``, if they are given."""
        ...


@dataclass(frozen=True)
class SignedRows:
    """``convrot_w4a4`` and ``int8_tensorwise``: signed codes, and one scale a row, of ``W H`` or W.

    Attributes:
        bits: 4 or 8.
        size: of the rotation; None is none.
        linear_dtype: of the activations beside 4 bits.
    """

    bits: Literal[4, 8]
    size: int | None
    linear_dtype: LinearDtype = "int4"

    @property
    def config(self) -> Mapping[str, Any]:
        """The size of the rotation, and the width of activations where it is not the usual."""
        if self.bits == 4:
            wider = {} if self.linear_dtype == "int4" else {"linear_dtype": self.linear_dtype}
            return {"format": "convrot_w4a4", "convrot_groupsize": self.size, **wider}
        rotated = {} if self.size is None else {"convrot": True, "convrot_groupsize": self.size}
        return {"format": "int8_tensorwise", **rotated}

    def types(self, out_features: int, in_features: int) -> dict[str, TensorType]:
        """``weight`` and ``weight_scale``."""
        scale = (out_features,) if self.bits == 4 else (out_features, 1)
        return {
            "weight": TensorType((out_features, in_features * self.bits // 8), torch.int8),
            "weight_scale": TensorType(scale, torch.float32),
        }

    def encode(
        self, weight: torch.Tensor, backend: str = "auto", moments: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Four bits by BGR of the scale, as in the recipe ``convrot``; eight by min-max, which is as good there."""
        rounding: Rounding = "nearest" if moments is None else "feedback"
        grid: Grid = "bgr-symmetric" if self.bits == 4 else "minmax"
        rule = WeightRule(self.bits, grid, symmetric=True, rounding=rounding)
        rotation = Rotation("regular") if self.size == ROTATION_BLOCK else None
        feedback = None
        if moments is not None:
            in_basis = moments if rotation is not None else rotated_moments(moments, self.size)
            feedback = error_feedback(in_basis, rotation)
        codes, scales = [], []
        for chunk in _chunks(weight):
            given = chunk if rotation is not None or self.size is None else rotate(chunk, self.size)
            found = quantize_weight(given, rule, rotation=rotation, feedback=feedback, backend=backend)
            signed = signed_codes(found.qweight, self.bits)
            if rotation is not None:
                signed = relabel(signed)
            codes.append(pack(signed) if self.bits == 4 else signed)
            scales.append(found.scale)
        scale = torch.cat(scales)
        return {"weight": torch.cat(codes), "weight_scale": scale[:, 0] if self.bits == 4 else scale}


@dataclass(frozen=True)
class Groups:
    """``awq_w4a16``: unsigned codes, a scale and an offset for each group of channels, for full activations."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The size of a group."""
        return {"format": "awq_w4a16", "group_size": AWQ_GROUP}

    def types(self, out_features: int, in_features: int) -> dict[str, TensorType]:
        """``weight``, ``weight_scale`` and ``weight_zeros``; the last two are in the dtype of the product."""
        grid = TensorType((in_features // AWQ_GROUP, out_features), torch.bfloat16)
        codes = TensorType((out_features, in_features // 2), torch.int8)
        return {"weight": codes, "weight_scale": grid, "weight_zeros": grid}

    def encode(
        self, weight: torch.Tensor, backend: str = "auto", moments: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """``s = Δ`` and ``o = (8 - z) Δ`` of BGR, rounded to bfloat16, and the codes that are nearest on that grid."""
        rule = WeightRule(4, "bgr", AWQ_GROUP)
        feedback = None if moments is None else error_feedback(moments)
        codes, scales, offsets = [], [], []
        for chunk in _chunks(weight):
            found = quantize_weight(chunk, rule, backend=backend)
            assert found.zero is not None
            scale = found.scale.to(torch.bfloat16)
            offset = ((code_offset(4) - found.zero) * found.scale).to(torch.bfloat16)
            groups = chunk.to(torch.float32).view(*scale.shape, AWQ_GROUP)
            wanted = groups - offset[..., None].float()
            if feedback is None:
                steps = (wanted / scale[..., None].float()).round_() + code_offset(4)
                codes.append(pack(steps.clamp_(*unsigned_range(4)).to(torch.uint8).view(chunk.shape)))
            else:
                middle = torch.full_like(found.zero, code_offset(4))
                packed = encode_with_feedback(wanted.view(chunk.shape), scale, middle, feedback, 4, 0)
                codes.append(packed.view(torch.int8))
            scales.append(scale)
            offsets.append(offset)
        grid = {"weight_scale": torch.cat(scales), "weight_zeros": torch.cat(offsets)}
        return {"weight": torch.cat(codes)} | {name: tensor.T.contiguous() for name, tensor in grid.items()}


def activations_too(wanted: FormatName, in_features: int, linear_dtype: LinearDtype = "int4") -> Encoding:
    """How a linear with quantized activations is written: in ``wanted``, or in 8 bits where its width does not fit."""
    size = next((size for size in SIZES if in_features % size == 0), None)
    if wanted == "convrot_w4a4" and in_features % PACKED_STEP == 0:
        return SignedRows(4, size, linear_dtype)
    if wanted == "asym_w4a8_int8" and size is not None:
        return Codebook(size)
    return SignedRows(8, size)


def weight_only(in_features: int) -> Encoding:
    """How a linear whose activations stay full is written: in groups, or in 8 bits where its width does not fit."""
    return Groups() if in_features % AWQ_GROUP == 0 else activations_too("int8_tensorwise", in_features)


def comfy_quant(encoding: Encoding) -> torch.Tensor:
    """The bytes of ``comfy_quant``, uint8."""
    return torch.frombuffer(bytearray(json.dumps(encoding.config).encode()), dtype=torch.uint8)


def check_choice(wanted: str, linear_dtype: str) -> None:
    """A :class:`DvdqError` unless there is such a format, and activations of that width beside it."""
    formats, dtypes = FormatName.__args__, LinearDtype.__args__  # type: ignore[attr-defined]
    if wanted not in formats:
        raise DvdqError(OPERATION, where="format", expected=" or ".join(formats), got=repr(wanted))
    if linear_dtype not in dtypes:
        raise DvdqError(OPERATION, where="linear_dtype", expected=" or ".join(dtypes), got=repr(linear_dtype))
    if linear_dtype != "int4" and wanted != "convrot_w4a4":
        raise DvdqError(OPERATION, where="linear_dtype", expected="convrot_w4a4 beside it", got=wanted)


def _chunks(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(weight.split(max(1, _CHUNK // weight.shape[1])))


def signed_codes(qweight: torch.Tensor, bits: int) -> torch.Tensor:
    """``u = q - 2^(b-1)``, int8 ``[out, in]``, of codes as we store them, uint8 ``[out, in · bits / 8]``."""
    codes = torch.stack((qweight & 15, qweight >> 4), dim=2).flatten(1) if bits == 4 else qweight
    return (codes.to(torch.int16) - code_offset(bits)).to(torch.int8)


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Nibbles of codes ``[out, in]``, two a byte, the even channel low: int8 ``[out, in / 2]``."""
    nibbles = codes.view(torch.uint8) & 15
    return (nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)).view(torch.int8)
