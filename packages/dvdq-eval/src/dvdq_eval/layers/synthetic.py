"""Synthetic layers: a weight, activations of each kind, and the output in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dvdq_eval.layers.activations import Kind
from dvdq_eval.layers.recipes import Shape

TAIL = 4
"""Degrees of freedom of a weight's Student t, whose fourth moment is infinite."""
CALIBRATION_TOKENS = 256
"""Tokens that the maxima of SmoothQuant and ViDiT-Q are taken over."""
_CHUNK = 2**22
"""Elements of a weight that exist in float64 at a time."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Activations of one kind and seed, and what they become.

    Attributes:
        x: X, which is evaluated, float32 ``[tokens, in]``.
        exact: ``X Wᵀ``, float64 ``[tokens, out]``.
        maxima: ``max |X_j|`` over other tokens of the same layer, float32 ``[in]``: all that calibration knows.
    """

    x: torch.Tensor
    exact: torch.Tensor
    maxima: torch.Tensor


def draw_weight(shape: Shape, spread: float = 0.0) -> torch.Tensor:
    """``W_ij = t_ij e_j / √(2 in)``, float32 ``[out, in]``: Student's t with 4 degrees of freedom, whose variance is 2.

    ``spread`` is the standard deviation of ``ln e_j``, the scale of input channel j. The e_j have a mean square of one:
    the standard deviation of W is ``in^-1/2`` whatever the spread. A shape has one weight: over thousands of rows
    another one makes no difference that a seed would have to show.
    """
    rng, (out, width) = _stream(0, shape, "weight"), (shape.out_features, shape.in_features)
    scale = np.exp(spread * rng.standard_normal(width) - spread**2) / np.sqrt(TAIL / (TAIL - 2) * width)
    weight = np.empty((out, width), np.float32)
    rows = max(1, _CHUNK // width)
    for start in range(0, out, rows):
        part = weight[start : start + rows]
        part[:] = rng.standard_t(TAIL, part.shape) * scale
    return torch.from_numpy(weight)


def draw_samples(
    shape: Shape, weight: torch.Tensor, kinds: Mapping[str, Kind], tokens: int, seeds: Sequence[int]
) -> dict[tuple[str, int], Sample]:
    """``tokens`` activations by kind and seed; one is the same whichever others are drawn beside it."""
    drawn = {}
    for name, kind in kinds.items():
        for seed in seeds:
            layer, evaluated, calibration = (
                _stream(seed, shape, f"{name}: {use}") for use in ("layer", "evaluation", "calibration")
            )
            sampler = kind(shape.in_features, layer)
            maxima = np.abs(sampler(CALIBRATION_TOKENS, calibration)).max(axis=0)
            drawn[name, seed] = torch.from_numpy(sampler(tokens, evaluated)), torch.from_numpy(maxima)
    exact = _exact_product(torch.cat([x for x, _ in drawn.values()]), weight).split(tokens)
    return {key: Sample(x, y, maxima) for (key, (x, maxima)), y in zip(drawn.items(), exact, strict=True)}


def _exact_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    rows = max(1, _CHUNK // weight.shape[1])
    return torch.cat([wide @ part.double().t() for part in weight.split(rows)], dim=1)


def _stream(seed: int, shape: Shape, use: str) -> np.random.Generator:
    """Random numbers of their own for each seed, shape and use."""
    return np.random.default_rng([seed, shape.out_features, shape.in_features, *use.encode()])
