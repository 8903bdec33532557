"""How weight codes lie in a checkpoint: the one canonical layout, which kernels repack when they load.

Codes of up to 4 bits take a nibble: byte ``k`` of a row holds channel ``2k`` in its low four bits and channel
``2k + 1`` in its high four. Codes of 5 to 8 bits take a byte each.
"""

from __future__ import annotations

from dvdq_reference.spec.errors import DvdqError


def is_packed(bits: int) -> bool:
    """Whether codes of this width share a byte."""
    return bits <= 4


def packed_width(operation: str, in_features: int, bits: int) -> int:
    """Bytes that one row of codes takes: ``in / 2`` up to 4 bits, else ``in``; an odd ``in`` cannot be packed."""
    if not is_packed(bits):
        return in_features
    if in_features % 2:
        raise DvdqError(operation, expected="an even number of input channels for packed codes", got=in_features)
    return in_features // 2
