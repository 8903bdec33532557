"""Orthonormal Hadamard matrices, and the rotations that are made of them.

A Hadamard matrix of order n has entries ±1 and ``M Mᵀ = n I``; ``H = M / √n`` is orthonormal. Sylvester's doubling
gives the powers of two, Paley's constructions the orders ``q + 1`` for a prime ``q ≡ 3 (mod 4)`` and ``2(q + 1)`` for a
prime ``q ≡ 1 (mod 4)``, and a Kronecker product everything that a real model needs: ``3072 = 12 · 256``,
``14336 = 28 · 512``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dvdq_reference.oracle.inputs import Floats
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ROTATION_BLOCK, Rotation

Signs = NDArray[np.int8]


def factor(n: int) -> tuple[int, int]:
    """``(m, k)`` with ``n = m · 2^k``, m the smallest order that is 1 or Paley's: ``factor(5120) == (20, 8)``.

    Raises:
        DvdqError: if there is none, e.g. for 6 or 92.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise DvdqError("hadamard", expected="a whole number >= 1", got=n)
    n = int(n)
    k = (n & -n).bit_length() - 1
    m = n >> k
    while m != 1 and not (_is_first_order(m) or _is_second_order(m)):
        if k == 0:
            raise DvdqError("hadamard", expected=f"m * 2^k with m = 1 or {_ORDERS}", got=n)
        m, k = 2 * m, k - 1
    return m, k


def sylvester(k: int) -> Signs:
    """Sylvester's matrix of order ``2^k``, int8: ``M_0 = [1]``, ``M_{k+1} = [[1, 1], [1, -1]] ⊗ M_k``."""
    result = np.ones((1, 1), np.int8)
    for _ in range(k):
        result = np.kron(np.array([[1, 1], [1, -1]], np.int8), result)
    return result


def paley(m: int) -> Signs:
    """Paley's construction of order m, int8; ``paley(1)`` is ``[1]``.

    ``Q[i, j] = χ(i - j)``, where χ(a) is 0 for ``a ≡ 0 (mod q)``, 1 for a non-zero square modulo q and -1 otherwise.

    The first, for ``m = q + 1`` with a prime ``q ≡ 3 (mod 4)``: ``M = I + C`` with ``C = [[0, 1ᵀ], [-1, Q]]``. Q is
    skew-symmetric, so ``M Mᵀ = m I``.

    The second, where the first has no such prime, for ``m = 2(q + 1)`` with a prime ``q ≡ 1 (mod 4)``:
    ``M = C ⊗ [[1, 1], [1, -1]] + I ⊗ [[1, -1], [-1, -1]]`` with ``C = [[0, 1ᵀ], [1, Q]]``. Q is symmetric and
    ``C² = q I``, so ``M Mᵀ = m I``.
    """
    if m == 1:
        return np.ones((1, 1), np.int8)
    if _is_first_order(m):
        return np.asarray(_bordered(m - 1, -1) + np.eye(m, dtype=np.int8))
    if _is_second_order(m):
        c = _bordered(m // 2 - 1, 1)
        on_diagonal = np.array([[1, -1], [-1, -1]], np.int8)
        return np.kron(c, sylvester(1)) + np.kron(np.eye(len(c), dtype=np.int8), on_diagonal)
    raise DvdqError("paley", expected=_ORDERS, got=m)


def sign_matrix(n: int) -> Signs:
    """The Hadamard matrix of order n with entries ±1: ``paley(m) ⊗ sylvester(k)`` for ``(m, k) = factor(n)``, int8."""
    m, k = factor(n)
    return np.kron(paley(m), sylvester(k))


def hadamard_matrix(n: int) -> Floats:
    """``H = sign_matrix(n) / √n``, orthonormal, float64 ``[n, n]``. It is symmetric only if n is a power of two.

    Raises:
        DvdqError: for an order that neither construction reaches.
    """
    return np.asarray(sign_matrix(n) / np.sqrt(n), np.float64)


def random_signs(in_features: int, seed: int | None) -> Signs:
    """The ±1 of a seeded rotation: ``1 - 2 * numpy.random.default_rng(seed).integers(0, 2, size=in_features)``.

    Without a seed every sign is 1. An implementation has to draw the same numbers, hence the exact expression.
    """
    if seed is None:
        return np.ones(in_features, np.int8)
    return (1 - 2 * np.random.default_rng(seed).integers(0, 2, size=in_features)).astype(np.int8)


def regular_signs(in_features: int) -> Signs:
    """The ±1 of a regular rotation: of the channel with bits ``i_0 … i_7`` in its block, ``(-1)^(i0 i1 + … + i6 i7)``.

    The exponent is a bent function, one as far from all linear ones as can be: every column of ``diag(signs) H_256``
    sums to ±16, and equal channels leave with equal magnitudes, where H_256 alone gathers them in its first column. Up
    to the order and the signs of its columns it is ``R_4 ⊗ R_4 ⊗ R_4 ⊗ R_4`` with the regular Hadamard matrix
    ``R_4 = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]] / 2``.
    """
    i = np.arange(in_features) % ROTATION_BLOCK
    bits = (i >> np.arange(8)[:, None]) & 1
    exponent = (bits[0::2] * bits[1::2]).sum(axis=0)
    return np.where(exponent % 2 == 0, 1, -1).astype(np.int8)


def rotation_signs(in_features: int, rotation: Rotation) -> Signs:
    """The ±1 before H: :func:`regular_signs` of a ``regular`` rotation, else :func:`random_signs`."""
    return regular_signs(in_features) if rotation.kind == "regular" else random_signs(in_features, rotation.seed)


def rotation_matrix(in_features: int, rotation: Rotation) -> Floats:
    """``R = diag(signs) H``, orthonormal, float64 ``[in, in]``; it is used as ``x @ R`` and ``w @ R``.

    H is ``hadamard_matrix(in)`` for ``full`` and ``I ⊗ hadamard_matrix(256)`` for ``block`` and ``regular``; the signs
    are :func:`rotation_signs`.

    Raises:
        DvdqError: for a number of channels that has no Hadamard matrix, or that 256 does not divide (unless ``full``).
    """
    if rotation.kind == "full":
        h = hadamard_matrix(in_features)
    else:
        if in_features < 1 or in_features % ROTATION_BLOCK:
            raise DvdqError("rotation", expected=f"channels in multiples of {ROTATION_BLOCK}", got=in_features)
        blocks = in_features // ROTATION_BLOCK
        h = np.asarray(np.kron(np.eye(blocks), hadamard_matrix(ROTATION_BLOCK)), np.float64)
    return np.asarray(rotation_signs(in_features, rotation)[:, None] * h, np.float64)


_ORDERS = "a prime + 1 that 4 divides, or twice a prime + 1 that 4 does not divide"


def _bordered(q: int, border: int) -> Signs:
    """``[[0, 1ᵀ], [border, Q]]`` of order ``q + 1``, int8."""
    chi = np.full(q, -1, np.int8)
    chi[[i * i % q for i in range(1, q)]] = 1
    chi[0] = 0
    index = np.arange(q)
    result = np.zeros((q + 1, q + 1), np.int8)
    result[0, 1:], result[1:, 0] = 1, border
    result[1:, 1:] = chi[(index[:, None] - index[None, :]) % q]
    return result


def _is_first_order(m: int) -> bool:
    return m % 4 == 0 and _is_prime(m - 1)


def _is_second_order(m: int) -> bool:
    return m % 4 == 0 and (m // 2 - 1) % 4 == 1 and _is_prime(m // 2 - 1)


def _is_prime(n: int) -> bool:
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))
