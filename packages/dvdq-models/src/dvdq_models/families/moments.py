"""What a linear's input is like before anything has run: mean and variance of its channels, from weights alone.

A diffusion transformer modulates what it normalizes with scales and shifts that the time step decides, so that second
moments follow from weights and time steps. This is an algebra of independent Gaussian channels, a row for each time
step, in which a family writes down what its blocks do. What is not known (latents, a text, a residual stream after its
norm) is N(0, 1), and what attention gathers is like the values that it gathers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn.functional import gelu

Weights = Callable[[str], torch.Tensor]
"""A parameter of the transformer by name."""
gelu_tanh = partial(gelu, approximate="tanh")
_TIMES = (torch.arange(8) + 0.5) * (1000 / 8)
"""The middles of eight equal parts of the time steps."""
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(24)


@dataclass(frozen=True)
class Channels:
    """Independent Gaussian channels.

    Attributes:
        mean: float32 ``[steps, channels]``; one step is one that stands for all.
        variance: float32 ``[steps, channels]``.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def normal(cls, channels: int) -> Channels:
        """N(0, 1)."""
        return cls(torch.zeros(1, channels), torch.ones(1, channels))

    @classmethod
    def known(cls, values: torch.Tensor) -> Channels:
        """Values ``[steps, channels]`` without variance."""
        values = values.float()
        return cls(values, torch.zeros_like(values))

    def __add__(self, other: Channels) -> Channels:
        return Channels(self.mean + other.mean, self.variance + other.variance)

    def linear(self, weights: Weights, name: str) -> Channels:
        """``W x + b``: mean ``W μ + b``, variance ``(W ∘ W) σ²``."""
        weight = weights(f"{name}.weight").float()
        return Channels(self.mean @ weight.T + weights(f"{name}.bias").float(), self.variance @ weight.square().T)

    def affine(self, weights: Weights, name: str) -> Channels:
        """``w ∘ x + b``, the affine part of a norm."""
        weight = weights(f"{name}.weight").float()
        return Channels(self.mean * weight + weights(f"{name}.bias").float(), self.variance * weight.square())

    def through(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Channels:
        """``f(x)``: its Gaussian integrals, from 24 points of Gauss-Hermite quadrature."""
        deviation = self.variance.sqrt()
        mean, second = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        for node, share in zip(_NODES.tolist(), (_SHARES / math.sqrt(2 * math.pi)).tolist(), strict=True):
            value = function(self.mean + node * deviation)
            mean += share * value
            second += share * value.square()
        return _of_moments(mean, second)

    def modulated(self, scale: Channels, shift: Channels) -> Channels:
        """``x ∘ (1 + scale) + shift``."""
        gain = scale.mean + 1.0
        product = _of_moments(self.mean * gain, self._second() * (gain.square() + scale.variance))
        return product + shift

    def chunk(self, parts: int) -> list[Channels]:
        """As :func:`torch.chunk` of the channels."""
        return [Channels(*pair) for pair in zip(self.mean.chunk(parts, 1), self.variance.chunk(parts, 1), strict=True)]

    def magnitude(self) -> torch.Tensor:
        """The root of the second moment over all time steps, float32 ``[channels]``.

        It is rounded to bfloat16, so that who adds up in another order gets the same.
        """
        return self._second().mean(dim=0).sqrt().bfloat16().float()

    def _second(self) -> torch.Tensor:
        return self.mean.square() + self.variance


def joined(first: Channels, second: Channels) -> Channels:
    """The channels of both, one after the other."""
    return Channels(torch.cat([first.mean, second.mean], 1), torch.cat([first.variance, second.variance], 1))


def mixed(first: Channels, second: Channels) -> Channels:
    """Either of both, as often as the other."""
    return _of_moments((first.mean + second.mean) / 2, (first._second() + second._second()) / 2)


def time_steps(channels: int) -> Channels:
    """The sinusoids of time steps from 0 to 1000."""
    return sinusoids(_TIMES, channels)


def sinusoids(values: torch.Tensor, channels: int) -> Channels:
    """Of each value, the cosines and then the sines of its products with falling frequencies, as diffusers has them."""
    frequencies = torch.exp(torch.arange(channels // 2) * (-math.log(10000) / (channels // 2)))
    angles = values[:, None] * frequencies
    return Channels.known(torch.cat([angles.cos(), angles.sin()], 1))


def _of_moments(mean: torch.Tensor, second: torch.Tensor) -> Channels:
    return Channels(mean, (second - mean.square()).clamp(min=0.0))
