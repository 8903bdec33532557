"""What a method's passes were like: medians over the rounds, in total, by part and by linear."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from statistics import median

import numpy as np
import torch
from torch import nn

from dvdq_eval.device import dtype_on
from dvdq_eval.latency.results import LayerTime, MethodTime, Parts, Timing
from dvdq_eval.latency.rounds import Taken
from dvdq_eval.latency.taps import Dissection
from dvdq_eval.passes.running import Pass
from dvdq_eval.passes.sizes import weight_bytes
from dvdq_kernels.plan import plan_linear
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.running.attention import attention_of
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule


def method_time(turn: Pass, taken: Taken, exact: float | None, device: torch.device) -> MethodTime:
    """The medians of one method.

    Args:
        turn: what ran.
        taken: what was measured of it.
        exact: the median seconds of a pass in full precision; None if this is it.
        device: that it ran on.
    """
    timing, weights = _summarize(taken.seconds), weight_bytes(turn.transformer)
    return MethodTime(
        label=turn.variant.label,
        bits=turn.variant.bits(turn.width),
        attention=attention_of(turn.transformer),
        step=timing,
        ratio=1.0 if exact is None else exact / timing.p50,
        parts=_parts(taken.apart),
        layers=_layers(turn, taken.apart, device),
        peak_bytes=max(taken.peaks) + weights if taken.peaks else None,
        weight_bytes=weights,
    )


def _summarize(seconds: Sequence[float]) -> Timing:
    """Percentiles, between neighbours linearly."""
    p20, p50, p80 = map(float, np.percentile(seconds, [20, 50, 80]))
    return Timing(p20, p50, p80, len(seconds))


def _parts(rounds: Sequence[Dissection]) -> Parts:
    return Parts(
        rotate_quantize=median(one.rotate_quantize for one in rounds),
        products=median(one.products for one in rounds),
        attention=median(one.attention for one in rounds),
        rest=median(one.rest for one in rounds),
    )


def _layers(turn: Pass, rounds: Sequence[Dissection], device: torch.device) -> tuple[LayerTime, ...]:
    layers = []
    for name, first in rounds[0].layers.items():
        layer, pieces = turn.transformer.get_submodule(name), [one.layers[name] for one in rounds]
        layers.append(
            LayerTime(
                name=name,
                out_features=layer.out_features,
                in_features=layer.in_features,
                tokens=first.tokens,
                rotate_quantize=median(piece.rotate_quantize for piece in pieces),
                product=median(piece.product for piece in pieces),
                kernels=_kernels_of(layer, turn.width, first.tokens, device),
            )
        )
    return tuple(layers)


def _kernels_of(layer: nn.Module, width: int, tokens: int, device: torch.device) -> str:
    if not isinstance(layer, QuantizedLinear):
        return "torch: linear"
    rule = None if layer.activation is None else dataclasses.replace(layer.activation, bits=width)
    shape = layer.out_features, layer.in_features
    return _kernels(tokens, *shape, layer.recipe.weight, rule, layer.rotation, device)


@cache
def _kernels(
    tokens: int,
    out_features: int,
    in_features: int,
    weight: WeightRule,
    activation: ActivationRule | None,
    rotation: Rotation | None,
    device: torch.device,
) -> str:
    """The backend that ``"auto"`` takes on ``device``, and what it starts."""
    shape = tokens, out_features, in_features
    plan = plan_linear(*shape, weight, activation, rotation, dtype=dtype_on(device), device=device)
    return f"{plan.backend}: {'; '.join(plan.kernels)}"
