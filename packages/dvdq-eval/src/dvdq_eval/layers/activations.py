"""Kinds of activations: what the inputs of a layer look like, each with its numbers and its reason.

A kind first fixes what belongs to a layer, such as which of its channels are large; what it returns then draws tokens
of that layer. So two samples, one to calibrate on and one to evaluate, differ as two videos do through one model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Sampler = Callable[[int, np.random.Generator], NDArray[np.float32]]
"""``(tokens, rng)`` to activations ``[tokens, in]``."""
Kind = Callable[[int, np.random.Generator], Sampler]
"""``(in, rng)`` to the sampler of one layer."""

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


def gaussian(in_features: int, rng: np.random.Generator) -> Sampler:
    """Standard normal: the case without outliers, for which the errors of each grid are known."""
    return lambda tokens, draw: draw.standard_normal((tokens, in_features), dtype=np.float32)


def channel_outliers(in_features: int, rng: np.random.Generator) -> Sampler:
    """Normal, with 0.5 % of the channels (at least one) 20 to 60 times as large in every token.

    What LLM.int8() and SmoothQuant found after layer norms, whose learned scale, in a DiT the modulation, makes single
    channels large: a scale per token leaves the others a fraction of a step, and calibration sees which they are.
    """
    count = max(1, round(OUTLIER_CHANNELS * in_features))
    factor = np.ones(in_features, np.float32)
    factor[rng.choice(in_features, count, replace=False)] = rng.uniform(*OUTLIER_FACTORS, count)
    return lambda tokens, draw: draw.standard_normal((tokens, in_features), dtype=np.float32) * factor


def massive_outliers(in_features: int, rng: np.random.Generator) -> Sampler:
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

    return sample


def after_gelu(in_features: int, rng: np.random.Generator) -> Sampler:
    """``GELU(s_j Z)``, ``ln s_j`` normal with a deviation of 0.5: the input of every second feed-forward linear.

    Nothing is below -0.17, and the square of the mean is 16 % of the mean square. A Hadamard matrix without random
    signs has nearly constant columns, which gather that mean in one channel.
    """
    scale = np.exp(GELU_SPREAD * rng.standard_normal(in_features, dtype=np.float32))

    def sample(tokens: int, draw: np.random.Generator) -> NDArray[np.float32]:
        z = draw.standard_normal((tokens, in_features), dtype=np.float32) * scale
        return np.asarray(z * ndtr(z), np.float32)

    return sample


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "gaussian": gaussian,
        "channel outliers": channel_outliers,
        "massive outliers": massive_outliers,
        "after GELU": after_gelu,
    }
)
"""By the name that a table gives them."""
