"""The integer linear: what a quantized layer computes, with exact integer sums.

With ``u = q - 2^(b-1)`` for the weight codes q, activation codes v and scales s, and for each group g of weight
channels its Δ and z,

``Y[t, n] = Σ_g Δ[n, g] ( Σ_b s[t, b] Σ_{k in b, g} v[t, k] u[n, k]  -  (z[n, g] - 2^(b-1)) r_g[t] ) + bias[n]``,
``r_g[t] = Σ_b s[t, b] Σ_{k in b, g} v[t, k]``.

With one group, ``r_g`` is the ``token_sum`` of :mod:`~dvdq_reference.oracle.arq`: the zero-point costs one number a
token.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, dequantize
from dvdq_reference.oracle.arq import quantize_block
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.inputs import Floats, code_matrix, matrix, vector
from dvdq_reference.spec.bits import code_offset, unsigned_range
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation


def quantized_linear(
    x: ArrayLike,
    codes: ArrayLike,
    grid: Grid,
    rule: ActivationRule | None,
    *,
    rotation: Rotation | None = None,
    bias: ArrayLike | None = None,
) -> Floats:
    """``Y = X̂ Ŵᵀ + bias``, float64 ``[tokens, out]``.

    Args:
        x: X, ``[tokens, in]``, not rotated.
        codes: weight codes q, ``[out, in]``, of the rotated weight ``W R`` if there is a rotation.
        grid: their scales and zero-points.
        rule: how X R is quantized; None leaves it as it is (W4A16), and the product is ``X R Ŵᵀ``.
        rotation: R, applied to x here.
        bias: ``[out]``.

    Raises:
        DvdqError: for shapes that do not fit, codes out of range, or NaN, Inf or beyond float32 (naming the token).
    """
    x = matrix("quantized_linear", x, "token")
    codes = code_matrix("quantized_linear", codes, *unsigned_range(grid.bits))
    if x.shape[1] != codes.shape[1]:
        raise DvdqError("quantized_linear", expected=f"{codes.shape[1]} channels, as the weight has", got=x.shape[1])
    grid.per_channel("quantized_linear", codes.shape)
    if rotation is not None:
        x = x @ rotation_matrix(x.shape[1], rotation)
    y = x @ dequantize(codes, grid).T if rule is None else _integer_product(x, codes, grid, rule)
    return y if bias is None else y + vector("quantized_linear", bias, codes.shape[0], "bias")


def _integer_product(x: Floats, codes: ArrayLike, grid: Grid, rule: ActivationRule) -> Floats:
    v, s, _ = quantize_block(x, rule)
    u = np.asarray(codes) - code_offset(grid.bits)
    z = grid.zero - code_offset(grid.bits)
    in_features, blocks, groups = x.shape[1], s.shape[1], grid.scale.shape[1]
    block, group = in_features // blocks, in_features // groups
    # Blocks and groups may differ in length; within a segment of their greatest common divisor both are constant.
    segment = gcd(block, group)
    y = np.zeros((x.shape[0], u.shape[0]))
    for g in range(groups):
        product, r = np.zeros_like(y), np.zeros(x.shape[0])
        for start in range(g * group, (g + 1) * group, segment):
            part, scale = slice(start, start + segment), s[:, start // block]
            product += scale[:, None] * (v[:, part] @ u[:, part].T)
            r += scale * v[:, part].sum(axis=1)
        y += grid.scale[:, g] * (product - z[:, g] * r[:, None])
    return y
