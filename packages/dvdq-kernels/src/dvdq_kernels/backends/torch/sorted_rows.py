"""Rows sorted once, so that the sums of Eq. 4-6 over any grid cost a few look-ups instead of a pass.

A grid's codes are monotonic in the weight: over a sorted row they are a staircase, known by the counts ``n_j`` of
values with a code of at most j. With prefix sums P of the row, its length m and ``j = 0 … 2^b - 2``,

``Σ q = Σ_j (m - n_j)``, ``Σ q² = Σ_j (2j + 1)(m - n_j)``, ``Σ q w = Σ_j (P_m - P[n_j])``.

The counts are exact: a table of buckets says where to look, a binary search as long as the fullest bucket ends it.
"""

from __future__ import annotations

import numpy as np
import torch

_BUCKETS = 2048


class SortedRows:
    """``[rows, width]`` values, sorted, with float64 prefix sums and a bucket table; a grid names its row.

    Values and prefix sums lie flat at one stride, so that one position serves both; the values end in infinities, so
    that a search may step over the end of its row.
    """

    def __init__(self, parts: torch.Tensor) -> None:
        rows, self.width = parts.shape
        ordered = _sort(parts)
        values = ordered.to(torch.float64)
        self.low, self.high = values[:, 0].clone(), values[:, -1].clone()
        # A range too small for a finite rate puts its whole row into one bucket.
        rate = _BUCKETS / (self.high - self.low)
        self._rate = torch.where(rate.isfinite(), rate, 0.0)
        row = torch.arange(rows, dtype=torch.int32, device=parts.device)
        filled = torch.bincount(self._bucket(values, row).view(-1), minlength=rows * _BUCKETS)
        self._steps = int(filled.max()).bit_length()
        self._stride = self.width + 2**self._steps - 1
        first = filled.view(rows, _BUCKETS).cumsum(dim=1, dtype=torch.int32)
        first += (row * self._stride)[:, None] - filled.view(rows, _BUCKETS)
        self._first = first.to(torch.int32).view(-1)
        self._values = ordered.new_full((rows, self._stride), torch.inf)
        self._values[:, : self.width] = ordered
        self._prefix = values.new_zeros((rows, self._stride))
        torch.cumsum(values, dim=1, out=self._prefix[:, 1 : self.width + 1])
        self.total = self._prefix[:, self.width].clone()
        self._squares = values.square_().sum(dim=1)
        self._values, self._prefix = self._values.view(-1), self._prefix.view(-1)

    def sums(self, row: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: int) -> torch.Tensor:
        """``Σ d w``, ``Σ d²``, ``Σ q`` and the error ``Σ (w - Δ d)²``, ``d = q - z``: float64 ``[4, grids]``.

        Args:
            row: int32 ``[grids]``.
            scale: Δ, float64 ``[grids]``.
            zero: z, float64 ``[grids]``.
            levels: the largest code, ``2^b - 1``.
        """
        step = torch.arange(levels, dtype=torch.float64, device=scale.device)
        position = self._search(row, self._edges(step, scale, zero))
        end = row * self._stride + self.width
        above = (end[:, None] - position.view(-1, levels)).to(torch.float64)
        below = self._prefix.index_select(0, position).view(-1, levels).sum(dim=1)
        q, qq = (above @ torch.stack((torch.ones_like(step), 2 * step + 1), dim=1)).unbind(dim=1)
        total = self.total[row]
        dw = (levels - zero) * total - below
        dd = qq - zero * (2 * q - zero * self.width)
        error = self._squares[row] - scale * (2 * dw - scale * dd)
        return torch.stack((dw, dd, q, error.clamp_min_(0.0)))

    def _edges(self, step: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        """The least value with a code above j, ``[grids, levels]``, in the dtype of the values."""
        half = (step + 0.5) - zero[:, None]
        edge = (half * scale[:, None]).to(self._values.dtype)
        # Eq. 6 rounds a quotient. That of the edge itself says whether a value on it still has code j: then the edge is
        # the next number up, which is what adding a little more than half an ulp gives.
        down = (edge.to(torch.float64, copy=True).div_(scale[:, None]).round_() < half).to(edge.dtype)
        return edge.addcmul_(edge.abs(), down, value=0.505 * torch.finfo(edge.dtype).eps)

    def _search(self, row: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        """Flat positions of the first value of the row not less than each edge: int32, flat."""
        position = self._first.index_select(0, self._bucket(edge.to(torch.float64), row).view(-1))
        edge = edge.view(-1)
        for exponent in reversed(range(self._steps)):
            size = 2**exponent
            less = self._values[size - 1 :].index_select(0, position) < edge
            position.add_(less, alpha=size)
        return position

    def _bucket(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Which bucket of which row: monotonic in ``x``, and the same arithmetic for values and for edges."""
        share = (x - self.low[row, None]).mul_(self._rate[row, None])
        return share.clamp_(0, _BUCKETS - 1).to(torch.int32).add_((row * _BUCKETS)[:, None])


def _sort(parts: torch.Tensor) -> torch.Tensor:
    """Rows in order, float32 or float64; on a CPU NumPy sorts about eight times faster than torch."""
    parts = parts.to(torch.promote_types(parts.dtype, torch.float32))
    if parts.device.type != "cpu":
        return parts.sort(dim=1).values
    return torch.from_numpy(np.sort(parts.numpy(), axis=1))
