"""What the largest value of an activation's block is divided by to give its scale; the oracle's tables of factors."""

from __future__ import annotations

from bisect import bisect_left
from math import log2

from dvdq_reference.spec.bits import check_bits, signed_range
from dvdq_reference.spec.clip_table import BLOCKS, FACTORS, SIGNED_FACTORS
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Clip

QUAROT = 0.9
"""QuaRot's constant ratio (Ashkboos et al. 2024, Sec. 5)."""


def limit_of(clip: Clip, bits: int, block: int) -> float:
    """L of ``s = x_max / L`` for a block of this length, in which ``x_max`` is what has the largest magnitude.

    With n codes above 0 that is ``n / c`` for ``max|x̃|``: c is 1 for ``absmax``, 0.9 for ``quarot`` and
    :func:`clip_factor` for ``gaussian``. For ``signed`` it is ``-(n + 1) / c`` for the value with its sign, or for the
    negative one of two of a magnitude, and c is :func:`clip_factor` of that.
    """
    low, high = signed_range(bits)
    if clip == "signed":
        return low / clip_factor(bits, block, signed=True)
    if clip == "gaussian":
        return high / clip_factor(bits, block)
    return high / (QUAROT if clip == "quarot" else 1.0)


def clip_factor(bits: int, block: int, *, signed: bool = False) -> float:
    """The c of least expected error for a Gaussian block of this length: ``clip_factor(4, 128)`` is 0.8291.

    Lengths that are not in the table are interpolated linearly in ``log2(block)``.

    Raises:
        DvdqError: for a width that is not 2 to 8, or a length outside the table.
    """
    check_bits("clip_factor", bits)
    if not BLOCKS[0] <= block <= BLOCKS[-1]:
        raise DvdqError("clip_factor", where="block", expected=f"{BLOCKS[0]} to {BLOCKS[-1]}", got=block)
    factors = (SIGNED_FACTORS if signed else FACTORS)[bits]
    at = bisect_left(BLOCKS, block)
    right = factors[at]
    if BLOCKS[at] == block:
        return right
    left = factors[at - 1]
    share = log2(block / BLOCKS[at - 1]) / log2(BLOCKS[at] / BLOCKS[at - 1])
    return left + share * (right - left)
