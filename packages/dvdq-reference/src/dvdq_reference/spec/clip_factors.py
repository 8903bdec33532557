"""The factor c of an activation's scale, ``s = c · max|x̃| / (2^(b-1) - 1)``; ``gaussian``'s is the oracle's table."""

from __future__ import annotations

from bisect import bisect_left
from math import log2

from dvdq_reference.spec.bits import check_bits
from dvdq_reference.spec.clip_table import BLOCKS, FACTORS
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Clip

QUAROT = 0.9
"""QuaRot's constant ratio (Ashkboos et al. 2024, Sec. 5)."""


def factor_of(clip: Clip, bits: int, block: int) -> float:
    """c of a clip for a block of this length: 1 for ``absmax``, 0.9 for ``quarot``, :func:`clip_factor` else."""
    if clip == "gaussian":
        return clip_factor(bits, block)
    return QUAROT if clip == "quarot" else 1.0


def clip_factor(bits: int, block: int) -> float:
    """The c of least expected error for a Gaussian block of this length: ``clip_factor(4, 128)`` is 0.8291.

    Lengths that are not in the table are interpolated linearly in ``log2(block)``.

    Raises:
        DvdqError: for a width that is not 2 to 8, or a length outside the table.
    """
    check_bits("clip_factor", bits)
    if not BLOCKS[0] <= block <= BLOCKS[-1]:
        raise DvdqError("clip_factor", where="block", expected=f"{BLOCKS[0]} to {BLOCKS[-1]}", got=block)
    at = bisect_left(BLOCKS, block)
    right = FACTORS[bits][at]
    if BLOCKS[at] == block:
        return right
    left = FACTORS[bits][at - 1]
    share = log2(block / BLOCKS[at - 1]) / log2(BLOCKS[at] / BLOCKS[at - 1])
    return left + share * (right - left)
