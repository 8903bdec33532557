"""Second moments of a transformer's activations from its weights: what smoothing without data stands on.

Channels are independent and Gaussian, with mean μ and variance σ². A modulated input has
``E[((1 + a) x + b)²]`` with what the time step makes of a and b, an affine norm ``w² + b²``, a linear's output
``(Σ_i W_ji μ_i + b_j)² + Σ_i W_ji² σ_i²``, and what an activation gives is an integral over the normal density.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from dvdq_reference.oracle.inputs import Floats, matrix, vector

_NODES = 200

Moments = tuple[Floats, Floats]
"""Mean and variance of each channel."""


def linear_moments(mean: ArrayLike, variance: ArrayLike, weight: ArrayLike, bias: ArrayLike) -> Moments:
    """Of ``W x + b``, float64 ``[out]`` each."""
    weight = matrix("linear_moments", weight)
    mean = vector("linear_moments", mean, weight.shape[1], "channel")
    variance = vector("linear_moments", variance, weight.shape[1], "channel")
    return weight @ mean + vector("linear_moments", bias, weight.shape[0], "row"), np.square(weight) @ variance


def modulated_moments(x: Moments, scale: Moments, shift: Moments) -> Moments:
    """Of ``x (1 + scale) + shift``, all three independent."""
    gain = 1 + scale[0]
    mean = x[0] * gain
    second = (x[0] ** 2 + x[1]) * (gain**2 + scale[1])
    return mean + shift[0], second - mean**2 + shift[1]


def activation_moments(mean: ArrayLike, variance: ArrayLike, function: Callable[[Floats], Floats]) -> Moments:
    """Of ``f(x)``, by 200 points of Gauss-Hermite quadrature."""
    mean, deviation = np.asarray(mean, np.float64), np.sqrt(np.asarray(variance, np.float64))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    values = function(mean[..., None] + deviation[..., None] * nodes)
    weights = weights / weights.sum()
    first = values @ weights
    return first, np.square(values - first[..., None]) @ weights


def gelu_tanh(x: Floats) -> Floats:
    """The tanh approximation of GELU: ``x sigmoid(2 sqrt(2/π) (x + 0.044715 x³))``."""
    return np.asarray(x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: Floats) -> Floats:
    """``x sigmoid(x)``."""
    return np.asarray(x * expit(x))
