"""Rounding with error feedback: GPTQ's, on a grid that is given.

With ``H = Xᵀ X / tokens``, what a row's error ``δ = w - ŵ`` does to the outputs is ``δ H δᵀ``, in the mean over tokens.
Rounding to nearest makes δ small, not that. GPTQ rounds the channels in order; of ``H⁻¹ = Uᵀ U``, U upper triangular,

``e_j = (w_j - ŵ_j) / U_jj``, then ``w_k -= e_j U_jk`` for all k > j,

so that those to come make up for channel j as well as they can. As U is triangular, errors of different channels do
not meet in the output: with the own error of each rounding, ``ε_j = U_jj e_j``, all that is left of ``δ H δᵀ`` is
``Σ_j e_j² = Σ_j ε_j² / U_jj²``. And ``1 / U_jj²`` is what of H_jj the later channels cannot explain, so never more than
H_jj. A grid that clips no code has ``|ε_j| <= Δ/2``, which bounds the output's error whatever the weights are.

GPTQ shifts the weights that are still to be rounded; the equal form of QuIP (LDLQ) leaves them and adds what is known
of δ: ``w_j + Σ_{i<j} δ_i M_ij``, with ``H = M D Mᵀ``, M unit upper triangular.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, dequantize, quantize
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.inputs import Floats, Ints, matrix, vector
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import FEEDBACK_DAMPING, Rotation


def second_moments(x: ArrayLike) -> Floats:
    """``H = Xᵀ X / tokens``, float64 ``[in, in]``, of ``[tokens, in]``: what calibration measures."""
    x = matrix("second_moments", x, "token")
    return np.asarray(x.T @ x / len(x))


def moments_in_basis(
    moments: ArrayLike, *, factor: ArrayLike | None = None, rotation: Rotation | None = None
) -> Floats:
    """The second moments of ``X/s R`` from those of X: ``Rᵀ diag(1/s) H diag(1/s) R``.

    So those of X serve every recipe, whatever it does to its channels.

    Args:
        moments: H, ``[in, in]``.
        factor: s, ``[in]``; None is 1.
        rotation: R; None is the identity.
    """
    moments = _moments("moments_in_basis", moments)
    if factor is not None:
        factor = vector("moments_in_basis", factor, len(moments), "channel")
        moments = moments / np.outer(factor, factor)
    if rotation is None:
        return moments
    r = rotation_matrix(len(moments), rotation)
    return np.asarray(r.T @ moments @ r)


def damped(moments: ArrayLike, damping: float = FEEDBACK_DAMPING) -> Floats:
    """``H + λ I`` with λ the share ``damping`` of the mean of H's diagonal, so that there is an inverse.

    λ is also what evenly spread noise of that power adds to the moments, as the rounding of activations does: four bits
    leave about a hundredth (:func:`dvdq_reference.oracle.gaussian.clip_error`). Where all moments are zero, λ is 1.
    """
    moments = _moments("damped", moments)
    mean = float(np.trace(moments)) / len(moments)
    return np.asarray(moments + (damping * mean if mean > 0 else 1.0) * np.eye(len(moments)))


def round_with_feedback(
    weight: ArrayLike, grid: Grid, moments: ArrayLike, *, damping: float = FEEDBACK_DAMPING
) -> Ints:
    """Codes of ``weight`` on ``grid``, int64 ``[out, in]``, each channel rounded to nearest of what it is by then.

    Args:
        weight: W, ``[out, in]``.
        grid: Δ and z of each row or group; they stay as they are.
        moments: H, ``[in, in]``, of the activations in the basis of ``weight``.
        damping: as in :func:`damped`.

    Raises:
        DvdqError: for a bad weight, a grid that does not fit, or moments that are not those of ``[tokens, in]``.
    """
    weight = matrix("round_with_feedback", weight)
    moments = damped(moments, damping)
    if len(moments) != weight.shape[1]:
        expected = f"[{weight.shape[1]}, {weight.shape[1]}], as the weight has channels"
        raise DvdqError("round_with_feedback", where="moments", expected=expected, got=list(moments.shape))
    scale, zero = grid.per_channel("round_with_feedback", weight.shape)
    upper = np.linalg.cholesky(np.linalg.inv(moments)).T
    shifted, codes = weight.copy(), np.empty(weight.shape, np.int64)
    for j in range(weight.shape[1]):
        column = Grid(scale[:, j : j + 1], zero[:, j : j + 1], grid.bits, grid.least)
        codes[:, j : j + 1] = quantize(shifted[:, j : j + 1], column)
        rounded = dequantize(codes[:, j : j + 1], column)[:, 0]
        error = (shifted[:, j] - rounded) / upper[j, j]
        shifted[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
    return codes


def output_error(weight: ArrayLike, codes: ArrayLike, grid: Grid, moments: ArrayLike) -> Floats:
    """``δ H δᵀ`` of each row, float64 ``[out]``: the mean over tokens of ``(x (w - ŵ)ᵀ)²``."""
    left = matrix("output_error", weight) - dequantize(codes, grid)
    return np.asarray(np.einsum("ni,ij,nj->n", left, _moments("output_error", moments), left))


def _moments(operation: str, moments: ArrayLike) -> Floats:
    moments = matrix(operation, moments, "channel")
    if moments.shape[0] != moments.shape[1]:
        raise DvdqError(operation, where="moments", expected="a square matrix", got=f"shape {moments.shape}")
    return moments
