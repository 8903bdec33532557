"""What the quantized layers of one model share while it runs: what the step says, and activations quantized once."""

from __future__ import annotations

import torch

from dvdq_kernels import QuantizedActivation, rotate_quantize
from dvdq_reference.spec.recipe import ActivationRule, Rotation


class ActivationState:
    """State of one model's layers, e.g. ``ActivationState(8)``, which the bit schedule writes at each step.

    Attributes:
        bits: width of activations.
        finishing: whether layers that have a second set of codes add their product.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.finishing = False

    def quantize(
        self, x: torch.Tensor, rule: ActivationRule, rotation: Rotation | None, backend: str
    ) -> QuantizedActivation:
        """:func:`dvdq_kernels.rotate_quantize`, once for all layers that ``x`` goes to."""
        return rotate_quantize(x, rule, rotation=rotation, backend=backend, shared=True)
