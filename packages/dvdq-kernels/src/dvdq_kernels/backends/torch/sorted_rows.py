"""Rows sorted once, so that the sums of Eq. 4-6 over any grid cost a few look-ups instead of a pass.

A grid's codes are monotonic in the weight: over a sorted row they are a staircase, known by the counts ``n_j`` of values
with a code of at most j. With prefix sums P of the row, its length m and ``j = 0 … 2^b - 2``,

``Σ q = Σ_j (m - n_j)``, ``Σ q² = Σ_j (2j + 1)(m - n_j)``, ``Σ q w = Σ_j (P_m - P[n_j])``.

The counts are exact: a table of buckets brackets each, a binary search inside the bucket ends it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

_BUCKETS = 2048


class GridSums(NamedTuple):
    """``Σ d w``, ``Σ d²`` with ``d = q - z``, ``Σ q`` and ``Σ (w - Δ d)²``, float64, one a grid."""

    dw: torch.Tensor
    dd: torch.Tensor
    q: torch.Tensor
    error: torch.Tensor


class SortedRows:
    """``[rows, width]`` values in float64, sorted, with prefix sums and a bucket table; a grid names its row."""

    def __init__(self, parts: torch.Tensor) -> None:
        rows, self.width = parts.shape
        values = _sort(parts).to(torch.float64)
        prefix = values.new_zeros((rows, self.width + 1))
        torch.cumsum(values, dim=1, out=prefix[:, 1:])
        self.low, self.high = values[:, 0], values[:, -1]
        self.total = prefix[:, -1]
        self.squares = values.square().sum(dim=1)
        # An infinite rate (range below 1/float64 max) would give 0 · inf; such rows share one bucket instead.
        rate = _BUCKETS / (self.high - self.low)
        self._rate = torch.where(rate.isfinite(), rate, 0.0)
        bucket = (values - self.low[:, None]).mul_(self._rate[:, None]).clamp_(max=_BUCKETS - 1).to(torch.int32)
        bucket += torch.arange(0, rows * _BUCKETS, _BUCKETS, dtype=torch.int32, device=values.device)[:, None]
        filled = torch.bincount(bucket.view(-1), minlength=rows * _BUCKETS)
        # Where each bucket starts in the flat array of all rows, and one past the last.
        self._start = torch.zeros(rows * _BUCKETS + 1, dtype=torch.int32, device=values.device)
        torch.cumsum(filled, dim=0, dtype=torch.int32, out=self._start[1:])
        self._steps = int(filled.max()).bit_length()
        self._values, self._prefix = values.view(-1), prefix.view(-1)

    def sums(self, row: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: int) -> GridSums:
        """The sums of the grids ``scale, zero`` ``[grids]`` with codes ``0 … levels``, on the rows ``row`` (int32)."""
        step = torch.arange(levels, dtype=torch.float64, device=scale.device)
        half = step - zero[:, None]
        # Half to even: a value on an edge takes the lower code if that is even, so the edge moves up by a rounding.
        ties = (half.remainder(2) == 0).to(torch.float64)
        edge = half.add_(0.5).mul_(scale[:, None])
        edge += ties.mul_(edge.abs()).mul_(2.0**-52)
        count = self._count_below(row, edge)
        below = self._prefix.index_select(0, (count + row[:, None] * (self.width + 1)).view(-1)).view_as(edge)
        above = (self.width - count).to(torch.float64)
        total = self.total[row]
        q = above.sum(dim=1)
        qq = above @ (2 * step + 1)
        dw = levels * total - below.sum(dim=1) - zero * total
        dd = qq - zero * (2 * q - zero * self.width)
        return GridSums(dw, dd, q, (self.squares[row] - scale * (2 * dw - scale * dd)).clamp_min_(0.0))

    def _count_below(self, row: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        """How many values of its row are less than each ``edge`` ``[grids, edges]``: int32."""
        bucket = (edge - self.low[row, None]).mul_(self._rate[row, None]).clamp_(0, _BUCKETS - 1).to(torch.int32)
        bucket = bucket.add_(row[:, None] * _BUCKETS).view(-1)
        base = self._start.index_select(0, bucket)
        end = self._start.index_select(0, bucket.add_(1))
        flat = edge.view(-1)
        last = self._values.shape[0] - 1
        for step in reversed(range(self._steps)):
            probe = base + (1 << step)
            value = self._values.index_select(0, (probe - 1).clamp_(max=last))
            inside = (probe <= end).logical_and_(value < flat)
            base.add_(inside, alpha=1 << step)
        return base.view_as(edge).sub_(row[:, None] * self.width)


def _sort(parts: torch.Tensor) -> torch.Tensor:
    """NumPy sorts a row about eight times faster than torch does on a CPU."""
    if parts.device.type != "cpu" or parts.dtype == torch.bfloat16:
        return parts.to(torch.float32 if parts.dtype == torch.bfloat16 else parts.dtype).sort(dim=1).values
    return torch.from_numpy(np.sort(parts.numpy(), axis=1))
