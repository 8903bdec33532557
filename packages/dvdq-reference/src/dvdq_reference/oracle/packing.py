"""Weight codes as bytes, in :mod:`the canonical layout <dvdq_reference.spec.layout>`.

Up to 4 bits, byte k of a row is ``q[2k] + 16 q[2k + 1]``; from 5 bits on, byte k is ``q[k]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dvdq_reference.oracle.inputs import Ints, code_matrix
from dvdq_reference.spec.bits import check_bits, unsigned_range
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.layout import is_packed, packed_width


def pack(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Codes ``[out, in]`` as uint8 ``[out, in / 2]`` up to 4 bits, else ``[out, in]``.

    Raises:
        DvdqError: for codes that ``bits`` cannot hold (naming the row), or an odd number of columns to be packed.
    """
    check_bits("pack", bits)
    codes = code_matrix("pack", codes, *unsigned_range(bits))
    packed_width("pack", codes.shape[1], bits)
    if not is_packed(bits):
        return codes.astype(np.uint8)
    return (codes[:, 0::2] + 16 * codes[:, 1::2]).astype(np.uint8)


def unpack(packed: ArrayLike, bits: int, in_features: int) -> Ints:
    """The codes that :func:`pack` packed, int64 ``[out, in]``.

    Raises:
        DvdqError: for a width that is not that of ``in_features``, or bytes that hold codes out of range.
    """
    check_bits("unpack", bits)
    width = packed_width("unpack", in_features, bits)
    packed = code_matrix("unpack", packed, 0, 255)
    if packed.shape[1] != width:
        raise DvdqError("unpack", expected=f"{width} bytes a row for {in_features} channels", got=packed.shape[1])
    if not is_packed(bits):
        return code_matrix("unpack", packed, *unsigned_range(bits))
    codes = np.stack([packed % 16, packed // 16], axis=2).reshape(packed.shape[0], in_features)
    return code_matrix("unpack", codes, *unsigned_range(bits))
