"""How many neighbouring input channels share a scale.

A *group* is consecutive input channels of one weight row, a *block* consecutive input channels of one token. ``None``
means the whole row or token: a ``[12, 256]`` weight has ``[12, 1]`` scales per row and ``[12, 4]`` in groups of 64.
"""

from __future__ import annotations

from dvdq_reference.spec.errors import DvdqError


def count_parts(operation: str, width: int, size: int | None) -> int:
    """How many groups or blocks of ``size`` channels make up ``width``; they must divide it exactly."""
    if size is None:
        return 1
    if size < 1 or width % size:
        raise DvdqError(operation, expected=f"a size that divides {width} channels exactly", got=size)
    return width // size
