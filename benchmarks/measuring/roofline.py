"""How long kernels would take on GPUs that are not here: arithmetic on data sheets, no measurement.

An occupancy follows from registers, shared memory and threads alone. A time is a bound from below: the slowest of the
units that a kernel keeps busy, as if that one never waited.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Multiprocessor:
    """What the multiprocessors of a compute capability hold (CUDA C++ Programming Guide, Compute Capabilities)."""

    warps: int
    blocks: int
    shared_bytes: int
    registers: int = 65536

    def resident(self, threads: int, registers: int, shared: int) -> int:
        """Blocks at a time. Registers go to warps by 256, and a block takes 1 KB of shared memory more than it asks."""
        warps = ceil(threads / 32)
        of_warp = 256 * ceil(32 * registers / 256)
        return min(
            self.blocks, self.warps // warps, self.registers // of_warp // warps, self.shared_bytes // (shared + 1024)
        )

    def occupancy(self, threads: int, registers: int, shared: int) -> float:
        """Resident warps over those that there is room for."""
        return self.resident(threads, registers, shared) * ceil(threads / 32) / self.warps


MULTIPROCESSORS = {
    80: Multiprocessor(64, 32, 164 * 1024),
    86: Multiprocessor(48, 16, 100 * 1024),
    89: Multiprocessor(48, 24, 100 * 1024),
    90: Multiprocessor(64, 32, 228 * 1024),
    100: Multiprocessor(64, 32, 228 * 1024),
    120: Multiprocessor(48, 32, 100 * 1024),
}


@dataclass(frozen=True)
class Gpu:
    """A data sheet: gigahertz, tera-operations a second of dense tensor cores by format, and terabytes a second."""

    name: str
    capability: int
    multiprocessors: int
    clock: float
    tensor: dict[str, float]
    bytes: float

    @property
    def issued(self) -> float:
        """Tera-instructions of warps a second: each of a multiprocessor's four schedulers issues one a clock."""
        return 4 * self.multiprocessors * self.clock / 1e3


GPUS = (
    Gpu("RTX 4090", 89, 128, 2.52, {"s4": 1321.2, "s8": 660.6, "bf16": 165.2}, 1.008),
    Gpu("A100 SXM 80 GB", 80, 108, 1.41, {"s4": 1248.0, "s8": 624.0, "bf16": 312.0}, 2.039),
    Gpu("H100 SXM", 90, 132, 1.83, {"s8": 1978.9, "bf16": 989.4}, 3.352),
)
"""NVIDIA's Ada whitepaper (table 2), A100 and H100 data sheets: boost clocks, bf16 with float32 sums.

An H100 has no INT4 tensor cores; its clock is the one at which its tensor cores reach the figures given.
"""


@dataclass(frozen=True)
class Estimate:
    """Milliseconds that each unit is busy."""

    tensor: float
    issue: float
    bytes: float

    @property
    def least(self) -> float:
        """Where all of them work at the same time."""
        return max(self.tensor, self.issue, self.bytes)

    @property
    def bound(self) -> str:
        """Who is busy longest."""
        busy = {"tensor cores": self.tensor, "instructions": self.issue, "memory": self.bytes}
        return max(busy, key=busy.__getitem__)


def estimate_product(
    gpu: Gpu, shape: tuple[int, int, int], tile: tuple[int, int], unit: str, x_bytes: float, loop: tuple[int, int]
) -> Estimate:
    """Of a product on integer tensor cores.

    Args:
        gpu: where.
        shape: tokens, output and input channels.
        tile: rows and columns of the output that a block computes; the last round of tiles is not full.
        unit: ``"s4"`` or ``"s8"``.
        x_bytes: of an activation.
        loop: instructions of a warp in one turn of the main loop, and what it multiplies and adds in it. What comes
            before and after the loop is left out.
    """
    tokens, out_features, in_features = shape
    tiles = ceil(tokens / tile[0]) * ceil(out_features / tile[1])
    rounds = ceil(tiles / gpu.multiprocessors)
    multiplied = rounds * gpu.multiprocessors * tile[0] * tile[1] * in_features
    moved = tokens * in_features * x_bytes + out_features * in_features / 2 + 2 * tokens * out_features
    return Estimate(
        tensor=2 * multiplied / gpu.tensor[unit] / 1e9,
        issue=multiplied / loop[1] * loop[0] / gpu.issued / 1e9,
        bytes=moved / gpu.bytes / 1e9,
    )
