"""What every backend is asked: the formats, shapes and inputs. A format that a backend lacks is a failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
ROTATIONS = (
    None,
    Rotation("full"),
    Rotation("block"),
    Rotation("full", seed=3),
    Rotation("block", seed=4),
    Rotation("regular"),
)
TOKENS = (1, 3, 17)
OUT_FEATURES = 24

WEIGHT_RULES = (
    WeightRule(4, "minmax"),
    WeightRule(4, "bgr"),
    WeightRule(4, "minmax", symmetric=True),
    WeightRule(4, "minmax", 64),
    WeightRule(4, "bgr", 128),
    WeightRule(4, "minmax", 128, symmetric=True),
    WeightRule(3, "bgr"),
    WeightRule(8, "minmax"),
)
CLIP_RULES = (
    WeightRule(4, "clip-search", symmetric=True),
    WeightRule(3, "clip-search", symmetric=True),
    WeightRule(8, "clip-search", symmetric=True),
    WeightRule(4, "clip-search", 128, symmetric=True),
)
SYMMETRIC_RULES = (
    WeightRule(4, "bgr-symmetric", symmetric=True),
    WeightRule(2, "bgr-symmetric", symmetric=True),
    WeightRule(8, "bgr-symmetric", 64, symmetric=True, num_bounds=2),
)
"""Both apart, as a backend may be without these grids: the registry says which."""
WEIGHT_CASES = (
    *((rule, torch.float32) for rule in WEIGHT_RULES),
    *((WeightRule(4, "minmax"), dtype) for dtype in DTYPES),
    # The literal oracle takes a second for each of these; bfloat16 is the dtype of checkpoints, full of ties.
    (WeightRule(4, "bgr"), torch.bfloat16),
    (WeightRule(3, "bgr"), torch.float16),
    (WeightRule(4, "bgr", 64), torch.float64),
    (WeightRule(4, "bgr", num_bounds=1), torch.float32),
    (WeightRule(4, "bgr", num_bounds=12), torch.float32),
    (WeightRule(4, "bgr", 128, tolerance=0.0), torch.float32),
    *((rule, torch.float32) for rule in CLIP_RULES + SYMMETRIC_RULES),
    (WeightRule(4, "bgr-symmetric", 128, symmetric=True), torch.bfloat16),
    (WeightRule(4, "clip-search", symmetric=True), torch.bfloat16),
    (WeightRule(3, "clip-search", 64, symmetric=True), torch.float64),
)
ACTIVATION_RULES = (
    ActivationRule(8),
    ActivationRule(4),
    ActivationRule(8, 128),
    ActivationRule(4, 64),
    ActivationRule(4, 256),
    ActivationRule(4, 128, "gaussian"),
    ActivationRule(8, None, "gaussian"),
    ActivationRule(4, None, "quarot"),
    ActivationRule(4, 64, "signed"),
    ActivationRule(8, None, "signed"),
    ActivationRule(6, 128),
)
PACKED_RULES = (
    ActivationRule(4),
    ActivationRule(4, 64, "gaussian"),
    ActivationRule(4, 256, "signed"),
    ActivationRule(3, 128),
)
PACKED_WEIGHT_RULES = (
    WeightRule(4, "minmax"),
    WeightRule(4, "minmax", symmetric=True),
    WeightRule(4, "minmax", 128),
    WeightRule(8, "minmax"),
)
ROTATED_SIZES = (256, 768, 1536, 3072, 5120, 8960, 12288, 13824, 14336, 15360)
"""Input channels of the bundled model, Wan and HunyuanVideo (3840, 11520 and the like do not occur)."""


@dataclass(frozen=True)
class LinearCase:
    """One linear, e.g. ``LinearCase(WeightRule(4, "bgr"), ActivationRule(4, 128), None, 256, 17, torch.float32)``."""

    weight: WeightRule
    activation: ActivationRule | None
    rotation: Rotation | None
    in_features: int
    tokens: int
    dtype: torch.dtype

    def __str__(self) -> str:
        w, a, r = self.weight, self.activation, self.rotation
        activation = "A16" if a is None else f"A{a.bits}-{a.block or 'token'}-{a.clip}"
        rotation = "plain" if r is None else f"{r.kind}-{'seeded' if r.seed is not None else 'unseeded'}"
        weight = f"W{w.bits}-{w.grid}-{w.group_size or 'row'}{'-symmetric' if w.symmetric else ''}"
        return f"{weight}-{activation}-{rotation}-{self.in_features}-{self.tokens}-{str(self.dtype)[6:]}"


def _linear_cases() -> tuple[LinearCase, ...]:
    """Every pair of rules once; sizes, rotations, token counts and dtypes take turns, so that all of them meet.

    Sizes and dtypes have met after 12 turns; from one dozen to the next the rotations move on by one, as there are six.
    """
    pairs = [(w, a) for w in WEIGHT_RULES for a in (None, *ACTIVATION_RULES)]
    return tuple(
        LinearCase(w, a, ROTATIONS[(i + i // 12) % 6], (256, 768, 1536)[i % 3], TOKENS[i % 7 % 3], DTYPES[i % 4])
        for i, (w, a) in enumerate(pairs)
    )


LINEAR_CASES = (
    *_linear_cases(),
    # Many tokens may take another route than few: weights unpacked first, larger tiles.
    LinearCase(WeightRule(4, "minmax"), ActivationRule(8), None, 256, 300, torch.bfloat16),
    LinearCase(WeightRule(4, "bgr", 128), ActivationRule(4, 64), Rotation("full"), 768, 300, torch.float16),
    LinearCase(WeightRule(8, "minmax"), ActivationRule(8, 128), Rotation("block"), 256, 300, torch.float32),
    LinearCase(WeightRule(4, "minmax", 64, symmetric=True), None, None, 256, 300, torch.bfloat16),
)


def gaussian(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normal values."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def activations(tokens: int, in_features: int, dtype: torch.dtype) -> torch.Tensor:
    """Normal values with an offset, two outlier channels and a token of zeros, if there are several."""
    x = gaussian(tokens, in_features, seed=tokens) + 0.25
    x[:, [5, in_features - 3]] *= 20
    if tokens > 2:
        x[1] = 0
    return x.to(dtype)


def weights(in_features: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal rows of unlike size, and rows with a mean, all positive, constant, zero, with one outlier, and skewed."""
    w = gaussian(OUT_FEATURES, in_features, seed=in_features) * torch.logspace(-3, 1, OUT_FEATURES)[:, None]
    w[1] += 3 * w[1].std()
    w[2] = w[2].abs() + w[2].std()
    w[3] = -0.75
    w[4] = 0
    w[5, 7] = 40 * w[5].abs().max()
    # A mean of some steps beside a zero-point that has a code: only then does Eq. 5 move it by the mean.
    w[6] = w[6].abs() - w[6].std() / 5
    return w.to(dtype)
