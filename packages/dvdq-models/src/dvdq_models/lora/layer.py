"""PEFT's LoRA layer around a quantized linear."""

from __future__ import annotations

from typing import Any, NoReturn

from peft.tuners.lora import Linear, LoraLayer
from torch import nn

from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.errors import DvdqError


class LoraQuantizedLinear(Linear):
    """``Y = base_layer(x) + Σ s B(A(x))`` over the active adapters; at first there are none.

    PEFT chooses a wrapper by the type of the layer and does not know ours, but to a LoRA layer that is there it only
    adds an adapter. The sum is PEFT's own, the one that a full-precision linear gets.
    """

    def __init__(self, base_layer: QuantizedLinear) -> None:
        nn.Module.__init__(self)
        LoraLayer.__init__(self, base_layer)
        self._active_adapter: list[str] = []
        self.fan_in_fan_out = self.is_target_conv_1d_layer = False

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, QuantizedLinear)
        return module.in_features, module.out_features

    def merge(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: codes that take up a float have to be quantized anew."""
        raise DvdqError("merge", expected="LoRA left beside a quantized layer", got="a merge into its codes")
