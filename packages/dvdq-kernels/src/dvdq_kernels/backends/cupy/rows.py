"""How threads share the rows of a weight, or groups of a row (``cuda/rows.cuh``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dvdq_kernels.backends.cupy.alignment import ALIGNMENT

_WARP, _BLOCK = 32, 128
_LEAST_TEAM, _LARGEST_TEAM = 4, 512


@dataclass(frozen=True)
class Rows:
    """Rows of an aligned ``parts [rows, width]``, each shared by a team of threads.

    Attributes:
        parts: the rows.
        each: at least so many values a thread, if a row has that many.
    """

    parts: torch.Tensor
    each: int

    @property
    def team(self) -> int:
        """Threads that share a row: some lanes of a warp, or a block."""
        most = max(_LEAST_TEAM, min(_LARGEST_TEAM, self.parts.shape[1] // self.each))
        return int(1 << most.bit_length() - 1)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.team if self.team > _WARP else _BLOCK

    @property
    def grid(self) -> int:
        """Blocks."""
        return -(-self.parts.shape[0] * self.team // self.threads)

    @property
    def vector(self) -> int:
        """Values a load: 16 bytes if every row begins at a multiple of them."""
        size = self.parts.element_size()
        return 1 if self.parts.shape[1] * size % ALIGNMENT else ALIGNMENT // size

    @property
    def scratch(self) -> int:
        """Bytes of shared memory in which a block adds up."""
        return 2 * self.team if self.team > _WARP else 0

    @property
    def staged(self) -> int:
        """Bytes of shared memory that hold a block's rows, a whole number of loads a thread."""
        loads = -(-self.parts.shape[1] // (self.team * self.vector))
        return loads * self.threads * self.vector * self.parts.element_size()

    def constants(self) -> dict[str, Any]:
        """What ``rows.cuh`` is compiled with."""
        return {"WEIGHT": self.parts.dtype, "VECTOR": self.vector, "TEAM": self.team, "THREADS": self.threads}
