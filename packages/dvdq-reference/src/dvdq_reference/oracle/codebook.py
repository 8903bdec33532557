"""``asym_w4a8_int8``: sixteen levels, a small scale for each 16 channels, and the integers of 8 bits that both make.

``W H ≈ c · i`` with ``i = clamp(round(r · l[q]), -127, 127)``: ``l`` sixteen levels for the whole weight, ``r``
(float8) for each group and ``c`` (float32) for each row. A product multiplies the integers, so a level counts as it is
rounded, and the search looks through the rounding:

1. ``r c`` of each group by alternating least squares on the levels themselves, and ``c`` so that the largest is 127;
2. ``r`` among the float8 numbers around it: that whose nearest levels, as integers, leave the least error;
3. ``c = ⟨W H, i⟩ / ⟨i, i⟩`` of each row's nearest integers i, then 2 and 3 again.

Codes are those of the nearest integers; of two codes that make the same one, the lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dvdq_reference.oracle.inputs import Floats, Ints, matrix
from dvdq_reference.spec.codebook import GROUP, LARGEST, LEVELS, NEIGHBOURS, ROUNDS, START_ROUNDS
from dvdq_reference.spec.errors import DvdqError

_TINY = 1e-30
_LEVELS = np.asarray(LEVELS, np.float32).astype(np.float64)


@dataclass(frozen=True)
class CodebookResult:
    """What :func:`search` found.

    Attributes:
        codes: q, int64 ``[out, in]``, 0 to 15.
        relative: r, float64 ``[out, in / 16]``, each a positive number of float8.
        channel: c, float64 ``[out]``.
    """

    codes: Ints
    relative: Floats
    channel: Floats


def float8_numbers() -> Floats:
    """The positive finite numbers of float8 with four bits of exponent and three of mantissa (e4m3), rising, ``[126]``.

    ``m / 8 · 2^-6`` below an exponent of 1, ``(1 + m / 8) · 2^(e - 7)`` from there; the last pattern is NaN.
    """
    exponent, mantissa = np.divmod(np.arange(1, 127), 8)
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return np.asarray(np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal), np.float64)


def integers(relative: float) -> Floats:
    """``clamp(round(r · l), -127, 127)`` of the sixteen levels, rising."""
    return np.asarray(np.clip(np.rint(_LEVELS * relative), -LARGEST, LARGEST), np.float64)


def decode(codes: Ints, relative: Floats, channel: Floats) -> Floats:
    """``c · i``, float64 ``[out, in]``: the weight in the rotated basis."""
    made = np.stack([[integers(r) for r in row] for row in relative])
    chosen = np.take_along_axis(made, codes.reshape(*relative.shape, GROUP), axis=2)
    return np.asarray((chosen * channel[:, None, None]).reshape(codes.shape), np.float64)


def search(rotated: ArrayLike) -> CodebookResult:
    """Codes, small scales and scales of the rows of ``W H``, ``[out, in]``.

    Raises:
        DvdqError: a bad weight, naming the row, or a width that 16 does not divide.
    """
    rows = matrix("codebook", rotated)
    if rows.shape[1] % GROUP:
        raise DvdqError("codebook", expected=f"a multiple of {GROUP} channels", got=rows.shape[1])
    found = [_row(row.reshape(-1, GROUP)) for row in rows]
    codes, relative, channel = (np.stack(parts) for parts in zip(*found, strict=True))
    return CodebookResult(codes.reshape(rows.shape), relative, channel)


def _row(groups: Floats) -> tuple[Ints, Floats, float]:
    scales = np.array([_start(group) for group in groups])
    largest = max(np.abs(s * _LEVELS[_nearest(g / s, _LEVELS)]).max() for g, s in zip(groups, scales, strict=True))
    channel = max(float(largest) / LARGEST, _TINY)
    relative = scales / channel
    for _ in range(ROUNDS):
        target = groups / channel
        relative = np.array([_best_relative(t, r) for t, r in zip(target, relative, strict=True)])
        made = np.stack([integers(r)[_nearest(t, integers(r))] for t, r in zip(target, relative, strict=True)])
        square = float(np.square(made).sum())
        least_squares = float((groups * made).sum()) / square if square > 0 else 0.0
        channel = least_squares if least_squares > _TINY else channel
    target = groups / channel
    codes = np.stack([_nearest(t, integers(r)) for t, r in zip(target, relative, strict=True)])
    return codes, relative, channel


def _start(group: Floats) -> float:
    """``r c`` of a group by alternating least squares on the levels themselves."""
    scale = max(float(np.abs(group).max()), _TINY)
    for _ in range(START_ROUNDS):
        chosen = _LEVELS[_nearest(group / scale, _LEVELS)]
        scale = max(float(group @ chosen / (chosen @ chosen)), _TINY)
    return scale


def _best_relative(target: Floats, start: float) -> float:
    numbers = float8_numbers()
    place = min(int(np.searchsorted(numbers, start)), len(numbers) - 1)
    candidates = [numbers[min(max(place + step, 0), len(numbers) - 1)] for step in NEIGHBOURS]
    errors = [np.square(integers(r)[_nearest(target / r, _LEVELS)] - target).sum() for r in candidates]
    return float(candidates[int(np.argmin(errors))])


def _nearest(target: Floats, levels: Floats) -> Ints:
    """The number of the level that is nearest to each value, the lower one of two that are as near."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, target, side="left").astype(np.int64)
