"""What the quantized layers of one model share while it runs: the width in force, and activations quantized once.

To Q, K and V goes the same tensor: it is rotated and quantized once. Whether it is the same is known without looking at
its values: the same object, not written to since.
"""

from __future__ import annotations

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from dvdq_kernels import QuantizedActivation, rotate_quantize
from dvdq_reference.spec.recipe import ActivationRule, Clip, Rotation, RotationKind


class ActivationState:
    """State of one model's layers, e.g. ``ActivationState(8)``; the bit schedule writes ``bits`` at each step."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def quantize(
        self, x: torch.Tensor, rule: ActivationRule, rotation: Rotation | None, backend: str
    ) -> QuantizedActivation:
        """:func:`dvdq_kernels.rotate_quantize`, or what it gave for the same ``x`` a moment ago.

        Its codes are kept as long as ``x`` lives and no other tensor is quantized. Nothing is looked up for inference
        tensors, to which a write leaves no trace; a compiled graph has one operator for Q, K and V all the same.
        """
        kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
        codes, scale, token_sum = _quantize_once(x, rule.bits, rule.block, rule.clip, kind, seed, backend)
        return QuantizedActivation(codes, scale, token_sum, rule, rotation, x.dtype)


_LATEST: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The latest tensor that was quantized, while it lives: its version, what was asked for, and the result."""


# Dynamo, which cannot know objects apart, leaves this as one call in its graph. AOTAutograd then runs it on stand-ins
# that are the same object where the tensor is the same, with versions, so that the graph that is compiled shares too.
@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _quantize_once(
    x: torch.Tensor, bits: int, block: int | None, clip: Clip, kind: RotationKind | None, seed: int | None, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    request = bits, block, clip, kind, seed, backend
    if not x.is_inference():
        version, made_for, tensors = _LATEST.get(x, (None, None, None))
        if (version, made_for) == (x._version, request):
            codes, scale, token_sum = tensors
            return codes, scale, token_sum
    rotation = None if kind is None else Rotation(kind, seed)
    made = rotate_quantize(x, ActivationRule(bits, block, clip), rotation=rotation, backend=backend)
    if not x.is_inference():
        _LATEST.clear()
        _LATEST[x] = x._version, request, (made.codes, made.scale, made.token_sum)
    return made.codes, made.scale, made.token_sum
