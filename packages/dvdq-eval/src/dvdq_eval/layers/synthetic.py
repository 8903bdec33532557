"""Synthetic layers: a weight, kinds of activations, each with its numbers and its reason, and the output in float64.

A kind first fixes what belongs to a layer, such as which of its channels are large; the layer then draws tokens. So two
samples, one to calibrate on and one to evaluate, differ as two videos do through one model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from dvdq_eval.layers.recipes import Shape

Sampler = Callable[[int, np.random.Generator], NDArray[np.float32]]
"""``(tokens, rng)`` to activations ``[tokens, in]``."""


@dataclass(frozen=True)
class Layer:
    """What one layer reads.

    Attributes:
        sample: draws tokens.
        known: ``√E[X_j²]`` as a model's own weights tell it, float32 ``[in]``: of single tokens they know nothing.
    """

    sample: Sampler
    known: NDArray[np.float32]


Kind = Callable[[int, np.random.Generator], Layer]
"""``(in, rng)`` to one layer."""

TAIL = 4
"""Degrees of freedom of a weight's Student t, whose fourth moment is infinite."""
CALIBRATION_TOKENS = 256
"""Tokens that the maxima of SmoothQuant and ViDiT-Q are taken over."""
_NODES = 60
"""Of the Gaussian integrals through GELU, which are then exact in float32."""
_CHUNK = 2**22
"""Elements of a weight that exist in float64 at a time."""

GAUSSIAN_MEDIAN = 0.6745
"""Median of ``|Z|`` for a standard normal Z."""

OUTLIER_CHANNELS = 0.005
"""Share of the channels that are large in every token."""
OUTLIER_FACTORS = (20.0, 60.0)
"""How many times the others such a channel is."""

TOKENS_A_MASSIVE_ONE = 64
"""One token in so many, at least one, has massive values."""
MASSIVE_POOL, MASSIVE_CHANNELS = 4, 2
"""Channels of a layer that can be massive, and how many of them are in one token."""
MASSIVE_RATIOS = (300.0, 600.0)
"""A massive value over the median magnitude of the others."""

GELU_SPREAD = 0.5
"""Standard deviation of the logarithm of the channels' scales before GELU."""


def gaussian(in_features: int, rng: np.random.Generator) -> Layer:
    """Standard normal: the case without outliers, for which the errors of each grid are known."""
    one = np.ones(in_features, np.float32)
    return Layer(lambda tokens, draw: draw.standard_normal((tokens, in_features), dtype=np.float32), one)


def channel_outliers(in_features: int, rng: np.random.Generator) -> Layer:
    """Normal, with 0.5 % of the channels (at least one) 20 to 60 times as large in every token.

    What LLM.int8() and SmoothQuant found after layer norms, whose learned scale, in a DiT the modulation, makes single
    channels large: a scale per token leaves the others a fraction of a step, and calibration sees which they are.
    """
    count = max(1, round(OUTLIER_CHANNELS * in_features))
    factor = np.ones(in_features, np.float32)
    factor[rng.choice(in_features, count, replace=False)] = rng.uniform(*OUTLIER_FACTORS, count)
    return Layer(lambda tokens, draw: draw.standard_normal((tokens, in_features), dtype=np.float32) * factor, factor)


def massive_outliers(in_features: int, rng: np.random.Generator) -> Layer:
    """Normal, but one token in 64 has two values of 300 to 600 times the median magnitude.

    Massive activations (Sun et al. 2024) stand in few channels, with one sign each, and in few tokens: four channels
    belong to the layer, and a massive token has two of them. Calibration can miss one. With 3072 channels the square
    of such a token's output is sixty times another's, so that the massive ones weigh as much as all others together.
    """
    pool = rng.choice(in_features, MASSIVE_POOL, replace=False)
    signs = rng.choice([-1.0, 1.0], MASSIVE_POOL)

    def sample(tokens: int, draw: np.random.Generator) -> NDArray[np.float32]:
        x = draw.standard_normal((tokens, in_features), dtype=np.float32)
        for token in draw.choice(tokens, max(1, tokens // TOKENS_A_MASSIVE_ONE), replace=False):
            chosen = draw.choice(MASSIVE_POOL, MASSIVE_CHANNELS, replace=False)
            ratios = draw.uniform(*MASSIVE_RATIOS, MASSIVE_CHANNELS)
            x[token, pool[chosen]] = signs[chosen] * ratios * GAUSSIAN_MEDIAN
        return x

    return Layer(sample, np.ones(in_features, np.float32))


def after_gelu(in_features: int, rng: np.random.Generator) -> Layer:
    """``GELU(s_j Z)``, ``ln s_j`` normal with a deviation of 0.5: the input of every second feed-forward linear.

    Nothing is below -0.17, and the square of the mean is 16 % of the mean square. A Hadamard matrix without random
    signs has nearly constant columns, which gather that mean in one channel.
    """
    scale = np.exp(GELU_SPREAD * rng.standard_normal(in_features, dtype=np.float32))

    def sample(tokens: int, draw: np.random.Generator) -> NDArray[np.float32]:
        return gelu(draw.standard_normal((tokens, in_features), dtype=np.float32) * scale)

    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    squares = gelu(scale[:, None] * nodes) ** 2 @ (weights / weights.sum())
    return Layer(sample, np.sqrt(squares).astype(np.float32))


def gelu(z: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """``z Φ(z)``."""
    return np.asarray(z * ndtr(z), np.float32)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "gaussian": gaussian,
        "channel outliers": channel_outliers,
        "massive outliers": massive_outliers,
        "after GELU": after_gelu,
    }
)
"""By the name that a table gives them."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Activations of one kind and seed, and what they become.

    Attributes:
        x: X, which is evaluated, float32 ``[tokens, in]``.
        exact: ``X Wᵀ``, float64 ``[tokens, out]``.
        maxima: ``max |X_j|`` over other tokens of the same layer, float32 ``[in]``: all that calibration knows.
        known: of the layer: what is known without data.
    """

    x: torch.Tensor
    exact: torch.Tensor
    maxima: torch.Tensor
    known: torch.Tensor


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
            made = kind(shape.in_features, layer)
            maxima = np.abs(made.sample(CALIBRATION_TOKENS, calibration)).max(axis=0)
            parts = made.sample(tokens, evaluated), maxima, made.known
            drawn[name, seed] = tuple(torch.from_numpy(part) for part in parts)
    exact = _exact_product(torch.cat([x for x, *_ in drawn.values()]), weight).split(tokens)
    return {key: Sample(x, y, *rest) for (key, (x, *rest)), y in zip(drawn.items(), exact, strict=True)}


def _exact_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    rows = max(1, _CHUNK // weight.shape[1])
    return torch.cat([wide @ part.double().t() for part in weight.split(rows)], dim=1)


def _stream(seed: int, shape: Shape, use: str) -> np.random.Generator:
    """Random numbers of their own for each seed, shape and use."""
    return np.random.default_rng([seed, shape.out_features, shape.in_features, *use.encode()])
