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
    """A data sheet: tera-operations a second of dense tensor cores by format, of float32, and terabytes a second."""

    name: str
    capability: int
    multiprocessors: int
    tensor: dict[str, float]
    float32: float
    bytes: float


GPUS = (
    Gpu("RTX 4090", 89, 128, {"s4": 1321.2, "s8": 660.6, "bf16": 165.2}, 82.6, 1.008),
    Gpu("A100 SXM 80 GB", 80, 108, {"s4": 1248.0, "s8": 624.0, "bf16": 312.0}, 19.5, 2.039),
    Gpu("H100 SXM", 90, 132, {"s8": 1978.9, "bf16": 989.4}, 66.9, 3.352),
)
"""NVIDIA's Ada whitepaper (table 2), A100 and H100 data sheets; bf16 with float32 sums; H100 has no INT4."""


@dataclass(frozen=True)
class Estimate:
    """Milliseconds that each unit is busy, and the one that is busy longest."""

    tensor: float
    float32: float
    bytes: float

    @property
    def least(self) -> float:
        """Where all of them work at the same time."""
        return max(self.tensor, self.float32, self.bytes)

    @property
    def bound(self) -> str:
        """Who decides that."""
        busy = {"tensor cores": self.tensor, "float32": self.float32, "memory": self.bytes}
        return max(busy, key=busy.__getitem__)


def estimate_product(
    gpu: Gpu, shape: tuple[int, int, int], tile: tuple[int, int], unit: str, x_bytes: float, parts: int
) -> Estimate:
    """Of a product on integer tensor cores.

    Args:
        gpu: where.
        shape: tokens, output and input channels.
        tile: rows and columns of the output that a block computes; the last round of tiles is not full.
        unit: ``"s4"`` or ``"s8"``.
        x_bytes: of an activation.
        parts: of a row that have scales of their own. Each costs an output a conversion and a multiplication, two
            instructions of the float32 units, of which the data sheet counts a fused one as two operations.
    """
    tokens, out_features, in_features = shape
    tiles = ceil(tokens / tile[0]) * ceil(out_features / tile[1])
    rounds = ceil(tiles / gpu.multiprocessors)
    outputs = rounds * gpu.multiprocessors * tile[0] * tile[1]
    moved = tokens * in_features * x_bytes + out_features * in_features / 2 + 2 * tokens * out_features
    return Estimate(
        tensor=2 * outputs * in_features / gpu.tensor[unit] / 1e9,
        float32=2 * 2 * outputs * parts / gpu.float32 / 1e9,
        bytes=moved / gpu.bytes / 1e9,
    )
