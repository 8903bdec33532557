"""The factors of a rotation ``R = diag(±1) (H_m ⊗ H_{2^k})``, which every backend multiplies by in its own way.

``H_m`` is one of Paley's constructions, ``H_{2^k}`` Sylvester's. The transform of a row ``x`` reshaped to
``[m, 2^k]`` is ``H_mᵀ x H_{2^k} / √in``. Sizes: powers of two times 1, 12, 20, 28, 60, 108, 140, …, which every linear
of Wan and HunyuanVideo has.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ROTATION_BLOCK, Rotation


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _is_first(m: int) -> bool:
    return m % 4 == 0 and _is_prime(m - 1)


def _is_second(m: int) -> bool:
    return m % 8 == 4 and _is_prime(m // 2 - 1)


def core_size(n: int) -> int | None:
    """The smallest ``m`` with ``n = m · 2^k`` for which ``H_m`` is trivial or Paley's; None if none.

    >>> [core_size(n) for n in (256, 1536, 3072, 5120, 8960, 13824, 14336, 15360, 7)]
    [1, 12, 12, 20, 140, 108, 28, 60, None]
    """
    if n < 1:
        return None
    m = n // (n & -n)
    while n % m == 0:
        if m == 1 or m in _ORDERS or (m >= _TABLED and (_is_first(m) or _is_second(m))):
            return m
        m *= 2
    return None


_TABLED = 1024
_ORDERS = frozenset(m for m in range(4, _TABLED, 4) if _is_first(m) or _is_second(m))
"""Of Paley's matrices, since they are looked up at each call."""


@lru_cache
def paley(m: int) -> NDArray[np.float64]:
    """``H_m``: entries ±1, ``H Hᵀ = m I``; ``[[1]]`` for 1.

    Inside stands ``χ(i - j)``, the Legendre symbol modulo q, with a border of ones. For ``m = q + 1``, q a prime of the
    form 4j + 3, the left border is negated and ``H = S + I``, S skew. For other ``m = 2(q + 1)``, q a prime of the form
    4j + 1, S is symmetric, each of its entries s becomes ``[[s, s], [s, -s]]``, and a diagonal one
    ``[[1, -1], [-1, -1]]``.
    """
    if m == 1:
        return np.ones((1, 1))
    first = _is_first(m)
    q = m - 1 if first else m // 2 - 1
    character = np.full(q, -1.0)
    character[(np.arange(1, q) ** 2) % q] = 1.0
    character[0] = 0.0
    index = np.arange(q)
    symbols = np.zeros((q + 1, q + 1))
    symbols[0, 1:] = 1.0
    symbols[1:, 0] = -1.0 if first else 1.0
    symbols[1:, 1:] = character[(index[:, None] - index[None, :]) % q]
    diagonal = np.eye(q + 1)
    if first:
        return symbols + diagonal
    matrix = np.empty((m, m))
    matrix[0::2, 0::2] = symbols + diagonal
    matrix[0::2, 1::2] = matrix[1::2, 0::2] = symbols - diagonal
    matrix[1::2, 1::2] = -symbols - diagonal
    return matrix


@lru_cache
def sylvester(n: int) -> NDArray[np.float64]:
    """``H_n`` for a power of two: ``H_1 = [[1]]``, ``H_2n = [[H, H], [H, -H]]``."""
    matrix = np.ones((1, 1))
    while matrix.shape[0] < n:
        matrix = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


@lru_cache
def rotation_signs(n: int, kind: str, seed: int | None) -> NDArray[np.float64] | None:
    """The ``±1`` of ``diag(±1) H``, None if all are 1.

    With a seed they are ``1 - 2 · default_rng(seed).integers(0, 2, n)``. Those of ``regular`` are the block of 256 that
    ``(1, 1, 1, -1)`` makes in the fourth Kronecker power, over and over: channel i of a block has the bent function
    ``(-1)^(i0 i1 + i2 i3 + i4 i5 + i6 i7)`` of its bits.
    """
    if kind == "regular":
        four = np.array([1.0, 1.0, 1.0, -1.0])
        sixteen = np.kron(four, four)
        return np.tile(np.kron(sixteen, sixteen), n // ROTATION_BLOCK)
    if seed is None:
        return None
    return 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, size=n).astype(np.float64)


def hadamard_size(in_features: int, kind: str) -> int:
    """The size of the Hadamard matrix: ``in`` for ``full``, 256 for ``block`` and ``regular``."""
    return in_features if kind == "full" else ROTATION_BLOCK


def check_rotation(operation: str, in_features: int, rotation: Rotation) -> None:
    """A :class:`DvdqError` unless ``in`` channels can be rotated so."""
    if rotation.kind != "full" and in_features % ROTATION_BLOCK:
        raise DvdqError(operation, expected=f"a multiple of {ROTATION_BLOCK} channels", got=in_features)
    if rotation.kind == "full" and core_size(in_features) is None:
        raise DvdqError(operation, expected="channels 2^k or 2^k·m, m an order of Paley's", got=in_features)
