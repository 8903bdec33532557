"""How far a correct implementation may be from the oracle, derived from sizes: the tolerances of tests.

The unit roundoff of float32 is ``u = 2^-24``, and k roundings in a row, in any order of summation, change a result by
at most ``γ_k = k u / (1 - k u)`` times the sum of the magnitudes of its terms (Higham, *Accuracy and Stability of
Numerical Algorithms*, ch. 3). Results below the smallest normal float32 are outside these bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, dequantize
from dvdq_reference.oracle.arq import quantize_block
from dvdq_reference.oracle.hadamard import factor, rotation_matrix
from dvdq_reference.oracle.inputs import Floats, Ints, code_matrix, matrix
from dvdq_reference.spec.bits import code_offset, signed_range, unsigned_range
from dvdq_reference.spec.recipe import ROTATION_BLOCK, ActivationRule, Rotation

UNIT_ROUNDOFF = 2.0**-24


def gamma(roundings: int, unit: float = UNIT_ROUNDOFF) -> float:
    """``γ_k``, the relative error of k roundings; with ``unit=2**-53`` for float64."""
    return roundings * unit / (1 - roundings * unit)


def rounding(grid: Grid, weight: ArrayLike) -> Floats:
    """How far Ŵ may be from a W that lies inside its grid, ``[out, in]``: half a step.

    Added to ``Δ / 2`` is what float64 loses: the quotient ``W / Δ`` is off by one rounding of its own, and so is Ŵ.
    """
    weight = matrix("rounding", weight)
    scale, _ = grid.per_channel("rounding", weight.shape)
    return np.asarray(scale / 2 + gamma(3, 2.0**-53) * (np.abs(weight) + scale))


def rotation_float32(x: ArrayLike, rotation: Rotation | None) -> Floats:
    """Error of a fast float32 Hadamard transform of x, elementwise, ``[tokens, in]``.

    Each output of an order ``m · 2^k`` passes m + k additions and two roundings of the factor ``1 / √n``, so the error
    is at most ``γ_(m+k+2) Σ |x_i| |R_ij|``.
    """
    x = matrix("rotation_float32", x, "token")
    if rotation is None:
        return np.zeros_like(x)
    order = x.shape[1] if rotation.kind == "full" else ROTATION_BLOCK
    m, k = factor(order)
    return np.asarray(gamma(m + k + 2) * (np.abs(x) @ np.abs(rotation_matrix(x.shape[1], rotation))))


@dataclass(frozen=True)
class CodeBounds:
    """How float32 activation codes and scales may differ from the oracle's.

    Attributes:
        may_differ: by how much the code of a value may be off, ``[tokens, in]``: by 1 if it lies near a rounding tie.
        scale: relative error of the scales, ``[tokens, blocks]``.
    """

    may_differ: Ints
    scale: Floats


def codes_float32(x: ArrayLike, rule: ActivationRule, rotation: Rotation | None = None) -> CodeBounds:
    """What rotation and quantization in float32 may change in :func:`~dvdq_reference.oracle.arq.quantize_block`.

    The scale has the relative error of the largest value and three roundings (of c, of c times the largest, of the
    quotient); ``x̃ / s`` has those of x̃ and of s, and one more rounding. Where float32 cannot tell which of two values
    of opposite signs is the largest, a signed scale may have the other sign, and every code another value.
    """
    x = matrix("codes_float32", x, "token")
    error = rotation_float32(x, rotation)
    rotated = x if rotation is None else x @ rotation_matrix(x.shape[1], rotation)
    _, scale, _ = quantize_block(rotated, rule)
    parts = (x.shape[0], scale.shape[1], -1)
    least, greatest = rotated.reshape(parts).min(axis=2), rotated.reshape(parts).max(axis=2)
    largest, blurred = np.maximum(-least, greatest), error.reshape(parts).max(axis=2)
    relative = blurred / np.where(largest > 0, largest, 1) + gamma(3)
    width = x.shape[1] // scale.shape[1]
    per_value, scale_error = np.repeat(scale, width, axis=1), np.repeat(relative, width, axis=1)
    quotient = rotated / per_value
    # A relative error e in the divisor is one of e / (1 - e) in the quotient.
    margin = (error / np.abs(per_value) + np.abs(quotient) * (scale_error + gamma(1))) / (1 - scale_error)
    tie = np.abs(quotient - np.floor(quotient) - 0.5)
    low, high = signed_range(rule.bits)
    clamped = (quotient - margin > high + 0.5) | (quotient + margin < low - 0.5)
    may_differ = ((tie <= margin) & ~clamped).astype(np.int64)
    if rule.clip == "signed":
        unknown = (np.abs(greatest + least) <= 2 * blurred) & (blurred > 0)
        may_differ = np.where(np.repeat(unknown, width, axis=1), high - low, may_differ)
        relative = np.where(unknown, 2 + relative, relative)
    return CodeBounds(may_differ, relative)


def linear_float32(
    x: ArrayLike,
    codes: ArrayLike,
    grid: Grid,
    rule: ActivationRule | None,
    *,
    rotation: Rotation | None = None,
    bias: ArrayLike | None = None,
) -> Floats:
    """How far :func:`~dvdq_reference.oracle.linear.quantized_linear` in float32 may be from float64, ``[tokens, out]``.

    Integer sums are exact, so what counts is the conversion of each, the sums over blocks and groups, the scales, the
    offset and the bias, plus one step of ``s |Ŵ|`` for each activation code that :func:`codes_float32` says may differ.
    ``rule=None`` is a float32 product of the rotated x with Ŵ. Scales, zero-points and bias are the stored ones.
    """
    x = matrix("linear_float32", x, "token")
    codes = code_matrix("linear_float32", codes, *unsigned_range(grid.bits))
    weight = np.abs(dequantize(codes, grid))
    rotated = x if rotation is None else x @ rotation_matrix(x.shape[1], rotation)
    in_features = x.shape[1]
    last = 0.0 if bias is None else np.abs(np.asarray(bias, np.float64))
    if rule is None:
        roundings = gamma(in_features + 4)
        error = rotation_float32(x, rotation)
        return np.asarray((error + roundings * (np.abs(rotated) + error)) @ weight.T + roundings * last)
    v, s, _ = quantize_block(rotated, rule)
    allowed = codes_float32(x, rule, rotation)
    blocks, groups = s.shape[1], grid.scale.shape[1]
    block, group = in_features // blocks, in_features // groups
    segment = gcd(block, group)
    # Conversion, times s, the sum over segments; r times z and the difference; times Δ, the sum over groups; the bias.
    roundings = gamma(in_features // segment + groups + 8)
    u, z = codes - code_offset(grid.bits), np.abs(grid.zero - code_offset(grid.bits))
    result = roundings * np.broadcast_to(last, (x.shape[0], codes.shape[0])).copy()
    for start in range(0, in_features, segment):
        part, b, g = slice(start, start + segment), start // block, start // group
        size = np.abs(v[:, part] @ u[:, part].T) + z[:, g] * np.abs(v[:, part].sum(axis=1))[:, None]
        relative = allowed.scale[:, b] + roundings
        result += (np.abs(s[:, b]) * relative)[:, None] * size * grid.scale[:, g]
    steps = np.repeat(np.abs(s) * (1 + allowed.scale + roundings), block, axis=1)
    # A changed code also changes what the offset subtracts; in float32 those two terms round apart.
    spread = weight + roundings * np.repeat(grid.scale * (z + code_offset(grid.bits)), group, axis=1)
    return np.asarray(result + (allowed.may_differ * steps) @ spread.T)
