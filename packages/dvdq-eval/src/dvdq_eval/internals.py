"""What is measured inside models: the error of each weight, and what a rotation does to activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from dvdq_kernels import dequantize, quantize_weight, rotate
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.recipe import Rotation


@dataclass(frozen=True)
class LayerError:
    """``‖W - Ŵ‖² / ‖W‖²`` of one rotated weight at four bits, by grid."""

    name: str
    minmax_error: float
    bgr_error: float


@dataclass(frozen=True)
class ChannelPeaks:
    """``max |x|`` of each input channel of one layer over all tokens and steps of a video, plain and rotated."""

    layer: str
    before: list[float]
    after: list[float]


def layer_errors(full: nn.Module, quantized: nn.Module) -> list[LayerError]:
    """``‖W - Ŵ‖² / ‖W‖²`` of every layer of a BGR model, and the same under a min-max grid.

    Both grids quantize the weight in the basis that ``quantized`` uses, so that they differ in nothing but the grid.
    """
    errors = []
    for name, layer in quantized.named_modules():
        if isinstance(layer, QuantizedLinear):
            weight = full.get_submodule(name).weight
            assert isinstance(weight, torch.Tensor)
            exact = weight.detach().float()
            if layer.rotation is not None:
                exact = rotate(exact, layer.rotation)
            minmax = quantize_weight(exact, dataclasses.replace(layer.recipe.weight, grid="minmax", rounding="nearest"))
            errors.append(
                LayerError(name, *(_relative_square(dequantize(codes), exact) for codes in (minmax, layer.quantized)))
            )
    return errors


def _relative_square(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((value - exact).double().square().sum() / exact.double().square().sum()).item())


@dataclass
class PeakRecorder:
    """The largest magnitude that each input channel of one layer reached, in its own basis and rotated."""

    layer: str
    rotation: Rotation
    before: torch.Tensor | None = None
    after: torch.Tensor | None = None

    @contextmanager
    def watching(self, transformer: nn.Module) -> Iterator[None]:
        """Record every call of the layer inside the block."""
        handle = transformer.get_submodule(self.layer).register_forward_pre_hook(self._record)
        try:
            yield
        finally:
            handle.remove()

    def _record(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        tokens = inputs[0].detach().float().flatten(0, -2)
        self.before = _raise(self.before, tokens)
        self.after = _raise(self.after, rotate(tokens, self.rotation))

    @property
    def peaks(self) -> ChannelPeaks:
        """What was recorded."""
        assert self.before is not None
        assert self.after is not None
        return ChannelPeaks(self.layer, self.before.tolist(), self.after.tolist())


def _raise(peaks: torch.Tensor | None, tokens: torch.Tensor) -> torch.Tensor:
    highest = tokens.abs().amax(dim=0)
    return highest if peaks is None else torch.maximum(peaks, highest)
