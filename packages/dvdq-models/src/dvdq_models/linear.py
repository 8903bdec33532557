"""The layer that takes a linear's place: packed codes, and activations quantized as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

import torch
from torch import nn

from dvdq_kernels import QuantizedWeight, quantize_weight, quantized_linear
from dvdq_models.activation_state import ActivationState
from dvdq_reference.spec.quantized import stored_tensors
from dvdq_reference.spec.recipe import ActivationRule, Recipe, Rotation, WeightRule

_CHUNK = 2**24
"""Elements of a weight that are rotated and quantized at a time: the float32 copies of a chunk, not of the weight."""

_STORED = ("qweight", "scale", "zero")


def quantize_rows(weight: torch.Tensor, rule: WeightRule, rotation: Rotation | None, backend: str) -> QuantizedWeight:
    """:func:`dvdq_kernels.quantize_weight` in chunks of rows, so that a weight of any size takes bounded memory.

    Everything that quantizes a weight of a model comes here, so that the same chunks give the same bits.
    """
    chunks = weight.split(max(1, _CHUNK // weight.shape[1]))
    parts = [quantize_weight(chunk, rule, rotation=rotation, backend=backend) for chunk in chunks]
    zeros = [part.zero for part in parts if part.zero is not None]
    return dataclasses.replace(
        parts[0],
        qweight=torch.cat([part.qweight for part in parts]),
        scale=torch.cat([part.scale for part in parts]),
        zero=torch.cat(zeros) if zeros else None,
    )


class QuantizedLinear(nn.Module):
    """``Y = Q(X R) Q(W R)^T + bias`` in integer arithmetic (W4A16 if ``activation`` is None).

    ``qweight`` (uint8, packed), ``scale`` (float32) and, unless symmetric, ``zero`` (int16) are what
    :func:`~dvdq_reference.spec.quantized.stored_tensors` lists; they keep their dtypes under any cast, since codes
    without their exact scale are another weight. They are parameters without gradients because what offloads a model
    takes buffers for small and leaves them on the device.
    """

    scale: torch.Tensor
    qweight: torch.Tensor
    zero: torch.Tensor | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        weight: WeightRule,
        activation: ActivationRule | None,
        rotation: Rotation | None,
        state: ActivationState,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_rule, self.activation, self.rotation = weight, activation, rotation
        self.state = state
        self.backend = backend
        self.register_parameter("zero", None)
        for tensor in stored_tensors(out_features, in_features, weight):
            empty = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype), device="meta")
            self.register_parameter(tensor.name, nn.Parameter(empty, requires_grad=False))
        self.register_parameter("bias", None)

    @classmethod
    def like(
        cls, linear: nn.Linear, recipe: Recipe, state: ActivationState, *, weight_only: bool, backend: str = "auto"
    ) -> Self:
        """A layer of the shape of ``linear`` whose codes are still to be filled in; the bias is the linear's own."""
        layer = cls(
            linear.in_features,
            linear.out_features,
            weight=recipe.weight,
            activation=None if weight_only else recipe.activation,
            rotation=recipe.rotation,
            state=state,
            backend=backend,
        )
        layer.bias = linear.bias
        return layer.train(linear.training)

    def quantize_(self, weight: torch.Tensor) -> None:
        """Fill in the codes and grid of ``weight`` ``[out, in]``."""
        quantized = quantize_rows(weight, self.weight_rule, self.rotation, self.backend)
        for name in _STORED:
            tensor = getattr(quantized, name)
            setattr(self, name, None if tensor is None else nn.Parameter(tensor, requires_grad=False))

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """The dtype of what is computed beside the codes, as PEFT asks for it: the bias's, if there is one."""
        return None if self.bias is None else self.bias.dtype

    @property
    def quantized(self) -> QuantizedWeight:
        """The weight as the kernels take it."""
        return QuantizedWeight(self.qweight, self.scale, self.zero, self.weight_rule, self.in_features, self.rotation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in]`` to ``[..., out]`` at the activation width in force."""
        rule, quantized = self.activation, None
        if rule is not None:
            rule = dataclasses.replace(rule, bits=self.state.bits) if rule.bits != self.state.bits else rule
            quantized = self.state.quantize(x, rule, self.rotation, self.backend)
        return quantized_linear(
            x if quantized is None else quantized,
            self.quantized,
            rule,
            rotation=self.rotation,
            bias=self.bias,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """Shape, widths and rotation, as ``print(model)`` shows them."""
        activation = "A16" if self.activation is None else f"A{self.state.bits}"
        rotation = "no rotation" if self.rotation is None else f"{self.rotation.kind} rotation"
        return f"{self.in_features}, {self.out_features}, W{self.weight_rule.bits}{activation}, {rotation}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        stored = {name: getattr(self, name).data for name in _STORED if getattr(self, name) is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in stored.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                after.data = before.to(after.device)
        return self
