"""Auto-scaling Rotated Quantization of activations (Eq. 10), after the rotation.

With ``n = 2^(b-1) - 1``, codes are ``v = clamp(round(x̃ / s), -n - 1, n)``, rounding half to even. The theory has a
scale per channel, ``s_j = max_tokens |x̃_ij| / n``, which an integer product cannot carry inside its sum; what runs has
one per token and block of channels, ``s = x_max / L``: L is :func:`~dvdq_reference.spec.clip_factors.limit_of` the
clip, ``n / c`` for ``x_max = max_block |x̃|``, and for ``signed`` ``-(n + 1) / c`` for the value with its sign. A scale
has at least the magnitude of the smallest normal float32, and is 1 where all is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.inputs import FLOAT32_TINY, Floats, Ints, matrix
from dvdq_reference.spec.bits import check_bits, signed_range
from dvdq_reference.spec.clip_factors import limit_of
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.recipe import ActivationRule


class QuantizedActivation(NamedTuple):
    """Activations as codes: ``[7, 256]`` in blocks of 64 have ``[7, 4]`` scales.

    Attributes:
        codes: v, int64 ``[tokens, in]``.
        scale: s, float64 ``[tokens, blocks]``; of either sign for ``signed``.
        token_sum: ``r[t] = Σ_blocks s[t, b] Σ_{k in b} v[t, k]``, float64 ``[tokens]``, what a zero-point multiplies.
    """

    codes: Ints
    scale: Floats
    token_sum: Floats


def quantize_channel(x: ArrayLike, bits: int) -> tuple[Ints, Floats]:
    """Eq. 10 as written: codes int64 ``[tokens, in]`` and scales ``s_j = max_tokens |x̃_ij| / n``, float64 ``[in]``.

    Raises:
        DvdqError: for another shape, NaN, Inf or beyond float32, naming the token.
    """
    check_bits("quantize_channel", bits)
    x = matrix("quantize_channel", x, "token")
    scale = _scale(np.abs(x).max(axis=0), limit_of("absmax", bits, 1))
    return _codes(x, scale, bits), scale


def quantize_block(x: ArrayLike, rule: ActivationRule) -> QuantizedActivation:
    """Codes with one scale per token and block: ``s = x_max / L``.

    Args:
        x: X̃, ``[tokens, in]``, rotated already if it is to be.
        rule: bits, block (None is the whole token) and clip.

    Raises:
        DvdqError: for another shape, NaN, Inf or beyond float32 (naming the token), or a block that does not divide.
    """
    x = matrix("quantize_block", x, "token")
    tokens, in_features = x.shape
    blocks = count_parts("quantize_block", in_features, rule.block)
    size = in_features // blocks
    parts = x.reshape(tokens, blocks, size)
    least, greatest = parts.min(axis=2), parts.max(axis=2)
    largest = np.where(-least >= greatest, least, greatest)
    scale = _scale(largest if rule.clip == "signed" else np.abs(largest), limit_of(rule.clip, rule.bits, size))
    codes = _codes(parts, scale[:, :, None], rule.bits)
    token_sum = (scale * codes.sum(axis=2)).sum(axis=1)
    return QuantizedActivation(codes.reshape(tokens, in_features), scale, token_sum)


def dequantize(codes: Ints, scale: Floats) -> Floats:
    """``x̂ = s v`` for scales ``[tokens, blocks]``, float64 ``[tokens, in]``."""
    return np.repeat(scale, codes.shape[1] // scale.shape[1], axis=1) * codes


def _scale(largest: Floats, limit: float) -> Floats:
    scale = largest / limit
    return np.where(largest == 0.0, 1.0, np.copysign(np.maximum(np.abs(scale), FLOAT32_TINY), scale))


def _codes(x: Floats, scale: Floats, bits: int) -> Ints:
    return np.clip(np.rint(x / scale), *signed_range(bits)).astype(np.int64)
