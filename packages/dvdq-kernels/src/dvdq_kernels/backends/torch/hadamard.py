"""``X R`` over the last dimension: the fast Hadamard transform as products with small factors.

``H_m ⊗ H_{2^k}`` is a Kronecker product of factors of at most 64 rows or of ``H_m``; a row costs
``in · Σ factor sizes`` multiplications, done by the matrix library, instead of ``in²``.
"""

from __future__ import annotations

import torch

from dvdq_kernels.kept import kept
from dvdq_kernels.rotation import core_size, hadamard_size, paley, rotation_signs, sylvester

_LARGEST_FACTOR = 64


def rotate(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """``X R`` in the dtype of ``x``; computed in float32, or float64 if that is its dtype."""
    work = torch.promote_types(x.dtype, torch.float32)
    return transform(x.to(work), kind, seed).to(x.dtype)


def transform(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """``X R`` for float32 or float64 ``x``: a fresh tensor."""
    signs = _signs(x.shape[-1], kind, seed, x.dtype, x.device)
    if signs is not None:
        x = x * signs
    first, *others = _factors(hadamard_size(x.shape[-1], kind), x.dtype, x.device)
    # The last axis by one product, each axis before it by a batch of small ones: nothing is transposed.
    rows = x.reshape(-1, first.shape[0]) @ first
    inner = first.shape[0]
    for factor in others:
        size = factor.shape[0]
        rows = rows.view(-1, size, inner)
        rows = torch.bmm(factor.t().expand(rows.shape[0], size, size), rows)
        inner *= size
    return rows.view(x.shape)


@kept
def _factors(size: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The Kronecker factors, last axis first, ``1/√size`` in the first of them."""
    m = core_size(size)
    assert m is not None
    sizes, rest = [], size // m
    parts = max(1, -(-(rest.bit_length() - 1) // (_LARGEST_FACTOR.bit_length() - 1)))
    for i in range(parts):
        exponent = (rest.bit_length() - 1) // (parts - i)
        sizes.append(2**exponent)
        rest >>= exponent
    arrays = [sylvester(n) for n in sizes if n > 1] + ([paley(m)] if m > 1 else [])
    arrays = arrays or [sylvester(1)]
    arrays[0] = arrays[0] / size**0.5
    return tuple(torch.tensor(a, dtype=dtype, device=device) for a in arrays)


@kept
def _signs(n: int, kind: str, seed: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
    signs = rotation_signs(n, kind, seed)
    return None if signs is None else torch.tensor(signs, dtype=dtype, device=device)
