"""How many integers a width can hold, and which."""

from __future__ import annotations

from dvdq_reference.spec.errors import DvdqError

MIN_BITS, MAX_BITS = 2, 8


def check_bits(operation: str, bits: int) -> int:
    """``bits`` if it is a whole number from 2 to 8, else a :class:`DvdqError`."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise DvdqError(operation, where="bits", expected=f"a whole number from {MIN_BITS} to {MAX_BITS}", got=bits)
    return bits


def unsigned_range(bits: int) -> tuple[int, int]:
    """Weight codes q: ``(0, 2^b - 1)``, e.g. ``(0, 15)`` at 4 bits."""
    return 0, 2**bits - 1


def signed_range(bits: int) -> tuple[int, int]:
    """Activation codes v: ``(-2^(b-1), 2^(b-1) - 1)``, e.g. ``(-8, 7)`` at 4 bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def code_offset(bits: int) -> int:
    """``2^(b-1)``: what turns an unsigned weight code q into the signed u = q - 2^(b-1) of an integer product."""
    return 1 << (bits - 1)
