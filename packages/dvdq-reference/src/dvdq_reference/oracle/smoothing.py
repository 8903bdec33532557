"""The baselines' ways to make activations easier: SmoothQuant (Eq. 9), ViDiT-Q and QuaRot.

All leave the product as it is: ``(X / s)(W s)ᵀ = X Wᵀ`` for a factor s per input channel, ``(X R)(W R)ᵀ = X Wᵀ`` for an
orthonormal R. Their activations are quantized per token, as :func:`~dvdq_reference.oracle.arq.quantize_block` does with
``ActivationRule(bits, None)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, dequantize, minmax_grid, quantize
from dvdq_reference.oracle.clip_search import search_clip
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.inputs import Floats, Ints, matrix, vector
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Rotation, Smoothing


def channel_absmax(x: ArrayLike) -> Floats:
    """``max|X_j|`` of each channel over the tokens (or rows) of ``[tokens, in]``: what calibration records."""
    return np.asarray(np.abs(matrix("channel_absmax", x, "token")).max(axis=0))


def smoothing_factor(x_max: ArrayLike, weight: ArrayLike, smoothing: Smoothing) -> Floats:
    """s, float64 ``[in]``, that divides X and multiplies W; 1 for a channel where X or W is all zero.

    - ``smoothquant`` (Eq. 9): ``s_j = max|X_j|^α / max|W_j|^(1-α)``;
    - ``analytic``: the same, with the root of X_j's second moment in place of ``max|X_j|``;
    - ``vidit-q`` multiplies X by ``mask_j = max|W_j|^α / max|X_j|^(1-α)``, so ``s = 1 / mask``, and its α is 1 minus
      SmoothQuant's.

    Args:
        x_max: ``max|X_j|``, ``[in]``, from calibration, or what :mod:`~dvdq_reference.oracle.moments` says of X_j.
        weight: W, ``[out, in]``.
        smoothing: kind and α, 0 to 1.

    Raises:
        DvdqError: for a bad weight, statistics that are negative, not finite or of another length, or α out of range.
    """
    weight = matrix("smoothing_factor", weight)
    x_max = vector("smoothing_factor", x_max, weight.shape[1], "channel")
    if (x_max < 0).any():
        channel = int(np.argmax(x_max < 0))
        raise DvdqError("smoothing_factor", where=f"channel {channel}", expected=">= 0", got=float(x_max[channel]))
    if not 0 <= smoothing.alpha <= 1:
        raise DvdqError("smoothing_factor", where="alpha", expected="0 to 1", got=smoothing.alpha)
    alpha = 1 - smoothing.alpha if smoothing.kind == "vidit-q" else smoothing.alpha
    w_max = np.abs(weight).max(axis=0)
    live = (x_max > 0) & (w_max > 0)
    return np.where(live, np.where(live, x_max, 1) ** alpha / np.where(live, w_max, 1) ** (1 - alpha), 1.0)


def smooth(x: ArrayLike, weight: ArrayLike, factor: ArrayLike) -> tuple[Floats, Floats]:
    """``(X / s, W s)``, whose product is that of X and W."""
    weight = matrix("smooth", weight)
    factor = vector("smooth", factor, weight.shape[1], "channel")
    if not (factor > 0).all():
        channel = int(np.argmin(factor > 0))
        raise DvdqError("smooth", where=f"channel {channel}", expected="a factor > 0", got=float(factor[channel]))
    x = matrix("smooth", x, "token")
    if x.shape[1] != weight.shape[1]:
        raise DvdqError("smooth", expected=f"{weight.shape[1]} channels, as the weight has", got=x.shape[1])
    return x / factor, weight * factor


def viditq_weight(
    weight: ArrayLike, factor: ArrayLike, rotation: Rotation, bits: int = 4, *, twice: bool = False
) -> tuple[Ints, Grid]:
    """ViDiT-Q's weight codes and their symmetric grid: ``W s`` (its W / mask), rotated, quantized per row.

    ``twice`` also quantizes ``W s`` before the rotation, as the authors' code does.
    """
    weight = matrix("viditq_weight", weight)
    weight = weight * vector("viditq_weight", factor, weight.shape[1], "channel")
    if twice:
        first = minmax_grid(weight, bits, symmetric=True)
        weight = dequantize(quantize(weight, first), first)
    weight = weight @ rotation_matrix(weight.shape[1], rotation)
    grid = minmax_grid(weight, bits, symmetric=True)
    return quantize(weight, grid), grid


def quarot_weight(
    weight: ArrayLike, rotation: Rotation, bits: int = 4, *, clip_search: bool = False
) -> tuple[Ints, Grid]:
    """QuaRot's weight codes, rounded to nearest, and their symmetric grid, of the rotated weight.

    The grid of a row is the min-max one or, with ``clip_search``, what :mod:`~dvdq_reference.oracle.clip_search` finds.
    """
    weight = matrix("quarot_weight", weight)
    weight = weight @ rotation_matrix(weight.shape[1], rotation)
    grid = search_clip(weight, bits) if clip_search else minmax_grid(weight, bits, symmetric=True)
    return quantize(weight, grid), grid
