"""What the operators exchange: a quantized weight as a checkpoint stores it, and quantized activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dvdq_kernels.activation_codes import unpack_codes
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A ``[out, in]`` weight in the canonical layout: ``W ≈ scale · (q - zero)``.

    A ``[12, 256]`` weight under ``WeightRule(4, "bgr", 64)`` has ``qweight`` ``[12, 128]`` uint8 (two nibbles a byte,
    the even channel low), ``scale`` ``[12, 4]`` float32 and ``zero`` ``[12, 4]`` int16. A symmetric rule has no
    ``zero``: it is ``2^(b-1)``. With a ``rotation`` R the codes are those of ``W R``.
    """

    qweight: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    rule: WeightRule
    in_features: int
    rotation: Rotation | None = None

    @property
    def out_features(self) -> int:
        """Rows, the output channels."""
        return self.qweight.shape[0]


@dataclass(frozen=True, eq=False)
class QuantizedActivation:
    """Activations ``[..., in]`` as integers: ``X R ≈ scale · values``.

    ``[7, 256]`` activations under ``ActivationRule(4, 128)`` have ``codes`` ``[7, 256]`` int8, or ``[7, 128]`` uint8
    where they lie two a byte, the even channel low; ``scale`` ``[7, 2]`` float32, and ``token_sum`` ``[7]`` float32,
    the sum of ``scale · values`` over a token, which is what a zero-point of the weight costs. ``dtype`` is that of the
    activations, and of a product's output.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    token_sum: torch.Tensor
    rule: ActivationRule
    rotation: Rotation | None
    dtype: torch.dtype

    @property
    def packed(self) -> bool:
        """Whether codes lie two a byte."""
        return self.codes.dtype == torch.uint8

    @property
    def in_features(self) -> int:
        """Input channels."""
        # Without a further property: a layer asks this each time.
        return self.codes.shape[-1] * (2 if self.codes.dtype == torch.uint8 else 1)

    @property
    def values(self) -> torch.Tensor:
        """The codes as integers, int8 ``[..., in]``, whichever way they are kept."""
        return unpack_codes(self.codes) if self.packed else self.codes
