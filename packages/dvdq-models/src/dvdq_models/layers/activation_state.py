"""What the quantized layers of one model share while it runs: the width in force, and activations quantized once."""

from __future__ import annotations

import torch

from dvdq_kernels import QuantizedActivation, rotate_quantize
from dvdq_reference.spec.recipe import ActivationRule, Rotation


class ActivationState:
    """State of one model's layers, e.g. ``ActivationState(8)``; the bit schedule writes ``bits`` at each step."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def quantize(
        self, x: torch.Tensor, rule: ActivationRule, rotation: Rotation | None, backend: str
    ) -> QuantizedActivation:
        """:func:`dvdq_kernels.rotate_quantize`, once for all layers that ``x`` goes to."""
        return rotate_quantize(x, rule, rotation=rotation, backend=backend, shared=True)
