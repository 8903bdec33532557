"""The layer that takes a linear's place: packed codes, and activations quantized as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from dvdq_kernels import QuantizedActivation, QuantizedWeight, quantized_linear
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.layers.encoding import LastFeedback, encode_weight
from dvdq_models.layers.prefetching import Prefetcher, brought
from dvdq_reference.spec.quantized import FINISH, stored_tensors
from dvdq_reference.spec.recipe import Recipe, Rotation

SECOND = tuple(f"{FINISH}{part}" for part in ("qweight", "scale", "zero"))
"""What a layer stores of what its first codes left."""
STORED = ("qweight", "scale", "zero", "smoothing", *SECOND)
"""What a layer may store of its weight."""


class QuantizedLinear(nn.Module):
    """``Y = Q(X/s R) Q(W s R)^T + bias`` in integer arithmetic (W4A16 without s if ``weight_only``).

    ``qweight`` (uint8, packed), ``scale`` (float32), unless symmetric ``zero`` (int16), and ``smoothing`` (s, float32)
    where the recipe smooths are what :func:`~dvdq_reference.spec.quantized.stored_tensors` lists; they keep their
    dtypes under any cast, since codes without their exact scale are another weight. They are parameters without
    gradients because what offloads a model takes buffers for small and leaves them on the device. A recipe with
    ``finish`` has a second set beside them, ``finish_qweight`` and so on, of what the first left: in a step that
    finishes, its product with the same activations is added. Kept in the computer's memory (:meth:`offload_finish`) the
    second set is no parameter, so nothing moves it, but still a part of the state.
    """

    scale: torch.Tensor
    qweight: torch.Tensor
    zero: torch.Tensor | None
    smoothing: torch.Tensor | None
    finish_scale: torch.Tensor
    finish_qweight: torch.Tensor
    finish_zero: torch.Tensor | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        recipe: Recipe,
        state: ActivationState,
        *,
        weight_only: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        # Smoothing spares activations that are quantized; others have nothing to be spared.
        self.recipe = dataclasses.replace(recipe, smoothing=None) if weight_only else recipe
        self.activation = None if weight_only else recipe.activation
        widths = () if weight_only else (recipe.schedule.high, recipe.schedule.low)
        self._rules = {bits: dataclasses.replace(recipe.activation, bits=bits) for bits in widths}
        self.state = state
        self.backend = backend
        self.prefetcher: Prefetcher | None = None
        for name in STORED:
            self.register_parameter(name, None)
        for tensor in stored_tensors(out_features, in_features, recipe.weight, self.recipe.smoothing, recipe.finish):
            empty = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype), device="meta")
            self.register_parameter(tensor.name, nn.Parameter(empty, requires_grad=False))
        self.register_parameter("bias", None)

    @classmethod
    def like(
        cls, linear: nn.Linear, recipe: Recipe, state: ActivationState, *, weight_only: bool, backend: str = "auto"
    ) -> Self:
        """A layer of the shape of ``linear`` whose codes are still to be filled in; the bias is the linear's own."""
        layer = cls(linear.in_features, linear.out_features, recipe, state, weight_only=weight_only, backend=backend)
        layer.bias = linear.bias
        return layer.train(linear.training)

    def encode(
        self,
        weight: torch.Tensor,
        channel_max: torch.Tensor | None = None,
        moments: torch.Tensor | None = None,
        last: LastFeedback | None = None,
    ) -> dict[str, torch.Tensor]:
        """What the layer stores of ``weight`` ``[out, in]``: :func:`~dvdq_models.layers.encoding.encode_weight`."""
        return encode_weight(weight, self.recipe, channel_max, moments, last=last, backend=self.backend)

    def quantize_(
        self,
        weight: torch.Tensor,
        channel_max: torch.Tensor | None = None,
        moments: torch.Tensor | None = None,
        last: LastFeedback | None = None,
    ) -> None:
        """Fill in what :meth:`encode` makes of ``weight``."""
        for name, tensor in self.encode(weight, channel_max, moments, last).items():
            setattr(self, name, nn.Parameter(tensor, requires_grad=False))

    @property
    def rotation(self) -> Rotation | None:
        """R."""
        return self.recipe.rotation

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """The dtype of what is computed beside the codes, as PEFT asks for it: the bias's, if there is one."""
        return None if self.bias is None else self.bias.dtype

    @property
    def quantized(self) -> QuantizedWeight:
        """The weight as the kernels take it."""
        return QuantizedWeight(self.qweight, self.scale, self.zero, self.recipe.weight, self.in_features, self.rotation)

    @property
    def finish(self) -> QuantizedWeight | None:
        """What the first codes left of the weight, for steps that finish; None if the recipe has no such rule."""
        rule = self.recipe.finish
        if rule is None:
            return None
        codes, scale, zero = self.finish_qweight, self.finish_scale, self.finish_zero
        return QuantizedWeight(codes, scale, zero, rule, self.in_features, self.rotation)

    def offload_finish(self, prefetcher: Prefetcher) -> None:
        """Keep the second set in the computer's memory, from where ``prefetcher`` copies it for each use."""
        stored = [name for name in SECOND if getattr(self, name) is not None]
        for name, kept in zip(stored, prefetcher.keep([getattr(self, name) for name in stored]), strict=True):
            self._parameters.pop(name, None)
            vars(self)[name] = kept
        self.prefetcher = prefetcher

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in]`` to ``[..., out]`` as the step under way says: at its width, with the codes that it takes."""
        rule, weight = self.activation, self.quantized
        if self.smoothing is not None:
            x = (x / self.smoothing).to(x.dtype)
        given: torch.Tensor | QuantizedActivation = x
        if rule is not None:
            bits = self.state.bits
            rule = self._rules.get(bits) or dataclasses.replace(rule, bits=bits)
            given = self.state.quantize(x, rule, weight.rotation, self.backend)
        y = quantized_linear(given, weight, rule, rotation=weight.rotation, bias=self.bias, backend=self.backend)
        if self.state.finishing and (left := self.finish) is not None:
            if self.prefetcher is not None:
                left = brought(left, y)
            y = y + quantized_linear(given, left, rule, rotation=left.rotation, backend=self.backend)
        return y

    def extra_repr(self) -> str:
        """Shape, widths and rotation, as ``print(model)`` shows them."""
        activation = "A16" if self.activation is None else f"A{self.state.bits}"
        rotation = "no rotation" if self.rotation is None else f"{self.rotation.kind} rotation"
        widths = "+".join(str(rule.bits) for rule in self.recipe.weights)
        return f"{self.in_features}, {self.out_features}, W{widths}{activation}, {rotation}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        stored = {name: getattr(self, name).data for name in STORED if getattr(self, name) is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in stored.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                after.data = before.to(after.device)
        return self

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is kept in the computer's memory is a parameter for as long as the state is read or written."""
        kept = [name for name in SECOND if name in vars(self)]
        self._parameters.update({name: nn.Parameter(vars(self)[name], requires_grad=False) for name in kept})
        try:
            yield
        finally:
            for name in kept:
                vars(self)[name] = getattr(self, name).detach()
                del self._parameters[name]

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        with self._whole():
            super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        with self._whole():
            super()._load_from_state_dict(*args, **kwargs)
