"""What the quantized layers of one model share while it runs: the width in force, and the last activations quantized.

To Q, K and V goes the same tensor: it is rotated and quantized once. Whether it is the same is known without looking at
its values: the same object, not written to since.
"""

from __future__ import annotations

import weakref

import torch

from dvdq_kernels import QuantizedActivation, rotate_quantize
from dvdq_reference.spec.recipe import ActivationRule, Rotation


class ActivationState:
    """State of one model's layers, e.g. ``ActivationState(8)``; the bit schedule writes ``bits`` at each step."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._last: tuple[weakref.ref[torch.Tensor], int, str, QuantizedActivation] | None = None

    def quantize(
        self, x: torch.Tensor, rule: ActivationRule, rotation: Rotation | None, backend: str
    ) -> QuantizedActivation:
        """:func:`dvdq_kernels.rotate_quantize`, or what it gave for the same ``x`` a moment ago.

        Its codes are kept as long as ``x`` lives and no other tensor is quantized. Nothing is looked up for inference
        tensors, to which a write leaves no trace, nor in a compiled graph, which cannot know objects apart.
        """
        if torch.compiler.is_compiling() or x.is_inference():
            return rotate_quantize(x, rule, rotation=rotation, backend=backend)
        if self._last is not None:
            source, version, made_by, result = self._last
            same = source() is x and version == x._version
            if same and (made_by, result.rule, result.rotation) == (backend, rule, rotation):
                return result
        result = rotate_quantize(x, rule, rotation=rotation, backend=backend)
        self._last = (weakref.ref(x, self._forget), x._version, backend, result)
        return result

    def _forget(self, source: weakref.ref[torch.Tensor]) -> None:
        if self._last is not None and self._last[0] is source:
            self._last = None
