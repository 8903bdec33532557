"""Rounding with error feedback: each channel makes up for what those before it got wrong (GPTQ, QuIP's LDLQ).

With H the second moments of the activations in the basis of the codes, the output's error of a row is ``δ H δᵀ``,
``δ = w - ŵ``. Of ``H + λ I = M D Mᵀ``, M unit upper triangular and D diagonal, channel j is rounded as
``w_j + Σ_{i<j} δ_i M_ij``. Where no code is clamped, ``δ M`` is then each rounding's own error ε, and the output's
``Σ_j D_j ε_j²``. Codes come one after the other, so that this runs in float64 wherever the weight is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dvdq_kernels.backends.torch.packing import pack
from dvdq_kernels.ops import run
from dvdq_reference.spec.bits import unsigned_range
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import FEEDBACK_DAMPING, Rotation

_BLOCK = 128
"""Channels whose errors reach those that follow by one product of matrices."""
Nearest = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
"""Of what is wanted of a channel, float64 ``[out]``, and its number: the nearest codes, and their values in float64."""


def error_feedback(moments: torch.Tensor, rotation: Rotation | None = None) -> torch.Tensor:
    """M, float64 ``[in, in]``, of ``Rᵀ H R + λ I = M D Mᵀ``; λ is ``FEEDBACK_DAMPING`` times the mean of H's diagonal.

    Args:
        moments: H, ``[in, in]``, any float dtype: ``Xᵀ X`` times any number above 0. All zero gives ``M = I``.
        rotation: R.

    Raises:
        DvdqError: not square, not finite, or no second moments of anything.
    """
    operation = "error_feedback"
    if moments.ndim != 2 or moments.shape[0] != moments.shape[1] or not bool(moments.isfinite().all()):
        raise DvdqError(operation, expected="a square matrix of finite moments", got=list(moments.shape))
    h: torch.Tensor = moments.to(torch.float64, copy=True)
    if rotation is not None:
        for _ in range(2):
            h = run("rotate", h, rotation.kind, rotation.seed, "torch").T.contiguous()
    mean = h.diagonal().mean()
    h.diagonal().add_(FEEDBACK_DAMPING * mean if mean > 0 else 1.0)
    # Cholesky's factor is lower; with the order of the channels reversed it is upper.
    lower, info = torch.linalg.cholesky_ex(h.flip(0, 1))
    if bool(info) or not bool(mean >= 0):
        raise DvdqError(operation, expected="second moments, which have no negative eigenvalue", got="others")
    upper: torch.Tensor = lower.flip(0, 1)
    return upper.div_(upper.diagonal().clone())


def encode_with_feedback(
    weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, feedback: torch.Tensor, bits: int, least: int
) -> torch.Tensor:
    """``q_j = clamp(round((w_j + Σ_{i<j} δ_i M_ij)/Δ) + z, least, 2^b - 1)``, half to even, packed.

    Args:
        weight: ``[out, in]``.
        scale: Δ, ``[out, groups]``, and
        zero: z.
        feedback: M, float64 ``[in, in]``.
        bits: b.
        least: the smallest code.
    """
    group = weight.shape[1] // scale.shape[1]
    steps, offsets = scale.to(torch.float64).T.contiguous(), zero.to(torch.float64).T.contiguous()

    def nearest(wanted: torch.Tensor, channel: int) -> tuple[torch.Tensor, torch.Tensor]:
        step, offset = steps[channel // group], offsets[channel // group]
        code = (wanted / step).round_().add_(offset).clamp_(least, unsigned_range(bits)[1])
        return code, (code - offset).mul_(step)

    return pack(round_with_feedback(weight, feedback, nearest), bits)


def round_with_feedback(weight: torch.Tensor, feedback: torch.Tensor, nearest: Nearest) -> torch.Tensor:
    """Codes of any grid, uint8 ``[out, in]``: those ``nearest`` to ``w_j + Σ_{i<j} δ_i M_ij``, channel after channel.

    Args:
        weight: ``[out, in]``.
        feedback: M, float64 ``[in, in]``.
        nearest: rounds to the grid.
    """
    out_features, in_features = weight.shape
    # A channel is a row here, so that what is read and written in one go lies together.
    columns = weight.to(torch.float64).T.contiguous()
    left = torch.zeros_like(columns)
    codes = torch.empty((in_features, out_features), dtype=torch.uint8, device=weight.device)
    for start in range(0, in_features, _BLOCK):
        block = slice(start, start + _BLOCK)
        targets = torch.addmm(columns[block], feedback[:start, block].T, left[:start])
        for j, target in enumerate(targets, start=start):
            wanted = torch.addmv(target, left[start:j].T, feedback[start:j, j])
            codes[j], value = nearest(wanted, j)
            left[j] = columns[j] - value
    return codes.T.contiguous()
