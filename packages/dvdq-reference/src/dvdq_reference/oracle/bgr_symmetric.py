"""BGR of a symmetric grid: the scale alone is refined, ``z = 2^(b-1)``, and zero has as many codes on either side.

For the shrink steps ``i = 0 … num_bounds - 1`` the largest magnitude is clipped by the share ``i / num_bounds``, which
is Eq. 7-8 of a range that is symmetric, and the scale of what is left, ``Δ = (1 - i / num_bounds) max|W| / L`` with
``L = 2^(b-1) - 1``, refined by alternating least squares:

``d = clamp(round(W / Δ), -L, L)`` (Eq. 6), ``Δ′ = ⟨d, W⟩ / ⟨d, d⟩`` (Eq. 4), while the squared error falls by more than
``tolerance`` of itself; the best scale of each row is kept. The first step is the symmetric min-max grid, so this is
never worse. The code ``-2^(b-1)`` is not used: a grid that is its own mirror image can be written in any basis that
differs by the signs and the order of its vectors, by relabelling its codes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.affine import Grid, in_groups, minmax_grid
from dvdq_reference.oracle.inputs import FLOAT32_TINY, Floats, matrix
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import BGR_BOUNDS, BGR_MAX_ROUNDS, BGR_TOLERANCE


def refine_scale(
    weight: ArrayLike,
    bits: int = 4,
    *,
    num_bounds: int = BGR_BOUNDS,
    group_size: int | None = None,
    tolerance: float = BGR_TOLERANCE,
) -> Grid:
    """The symmetric grid of least error over all shrink steps, each refined until it stops improving.

    Args:
        weight: W, ``[out, in]``.
        bits: b, 2 to 8.
        num_bounds: shrink steps, min-max included.
        group_size: input channels that share a scale; None is the whole row.
        tolerance: refinement goes on while the error falls by more than this share of itself, for at most
            ``BGR_MAX_ROUNDS`` rounds.

    Raises:
        DvdqError: for a bad weight (naming the row), a size that does not divide, or a parameter out of its range.
    """
    if num_bounds < 1:
        raise DvdqError("refine_scale", where="num_bounds", expected="at least 1", got=num_bounds)
    if not tolerance >= 0:
        raise DvdqError("refine_scale", where="tolerance", expected="at least 0", got=tolerance)
    start = minmax_grid(weight, bits, group_size=group_size, symmetric=True)
    groups = in_groups("refine_scale", matrix("refine_scale", weight), group_size)
    scale = np.empty(start.scale.shape)
    for at in np.ndindex(*scale.shape):
        # Magnitudes, sorted: the sums are then the same for every order and sign of the columns.
        values = np.sort(np.abs(groups[at]))
        refined = []
        for i in range(num_bounds):
            shrunk = max((1 - i / num_bounds) * float(start.scale[at]), FLOAT32_TINY)
            refined.append(_refine(values, shrunk, bits, tolerance))
        scale[at], _ = min(refined, key=lambda found: found[1])
    return Grid(scale, start.zero, bits, least=1)


def _refine(values: Floats, scale: float, bits: int, tolerance: float) -> tuple[float, float]:
    """Repeat Eq. 4 and 6 from Δ while the squared error falls by more than ``tolerance``: (Δ, error)."""
    codes, error = _codes_and_error(values, scale, bits)
    for _ in range(BGR_MAX_ROUNDS):
        square = codes @ codes
        least_squares = float(codes @ values / square) if square > 0 else scale
        new_scale = least_squares if least_squares >= FLOAT32_TINY else scale
        new_codes, new_error = _codes_and_error(values, new_scale, bits)
        if not new_error < error:
            break
        fall = (error - new_error) / error
        scale, codes, error = new_scale, new_codes, new_error
        if fall <= tolerance:
            break
    return scale, error


def _codes_and_error(values: Floats, scale: float, bits: int) -> tuple[Floats, float]:
    codes = np.minimum(np.rint(values / scale), code_offset(bits) - 1)
    return codes, float(np.square(values - scale * codes).sum())
