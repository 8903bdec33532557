"""A product of codes, ready to be multiplied: what every kernel that multiplies integers takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dvdq_reference.spec.bits import code_offset


@dataclass(frozen=True)
class Product:
    """``Y[t,n] = Σ_c s[t,c] Δ[n,c] (Σ_{k∈c} v·u - (z[n,c] - 2^(b-1)) Σ_{k∈c} v) + bias[n]``, all contiguous.

    The c are ``parts`` parts of a row, of ``width`` channels each, that share both scales.

    Attributes:
        codes: v, int8 ``[tokens, in]``, or uint8 ``[tokens, in/2]`` if two lie in a byte.
        x_scale: s, float32 ``[tokens, blocks]``.
        code_sum: of one group the token sum ``Σ_c s Σ v``, float32 ``[tokens]``; of more ``Σ_{k∈c} v`` of each part.
        weight: u, int8 ``[out, in]``, or uint8 codes as stored.
        scale: Δ, float32 ``[out, groups]``.
        zero: z, int16 ``[out, groups]``, None if it is ``2^(b-1)``.
        bias: ``[out]`` or None.
        out: where Y goes.
        in_features: channels.
        width: channels of a part.
        x_bits: of an activation code: v is from ``-2^(x_bits-1)`` on, whatever holds it.
        bits: of a weight.
    """

    codes: torch.Tensor
    x_scale: torch.Tensor
    code_sum: torch.Tensor
    weight: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    bias: torch.Tensor | None
    out: torch.Tensor
    in_features: int
    width: int
    x_bits: int
    bits: int

    @property
    def tokens(self) -> int:
        """Rows of the activations."""
        return self.codes.shape[0]

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.weight.shape[0]

    @property
    def parts(self) -> int:
        """How many times ``width`` there are."""
        return self.in_features // self.width

    @property
    def grouped(self) -> bool:
        """Whether a weight's scale changes from part to part."""
        return self.scale.shape[1] > 1

    def epilogue_arguments(self) -> tuple[Any, ...]:
        """What ``epilogue.cuh`` takes, in order (``LINEAR_ARGUMENTS``)."""
        sizes = self.tokens, self.out_features, self.parts, self.x_scale.shape[1], self.scale.shape[1]
        tensors = self.x_scale, self.code_sum, self.scale, self.zero, self.bias, self.out
        return (*tensors, *map(np.int64, sizes))

    def epilogue_constants(self) -> dict[str, Any]:
        """What ``epilogue.cuh`` is compiled with."""
        return {
            "OUT": self.out.dtype,
            "BIAS": self.out.dtype if self.bias is None else self.bias.dtype,
            "PARTED": self.parts > 1,
            "GROUPED": self.grouped,
            "HAS_ZERO": self.zero is not None,
            "HAS_BIAS": self.bias is not None,
            "FOURS": self.out_features % 4 == 0,
            "OFFSET": code_offset(self.bits),
        }
