"""Which tiles ``product_mma.cu`` runs with: what is legal, and a rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from dvdq_kernels.backends.cupy.target import target_of
from dvdq_kernels.call import power_of_two
from dvdq_kernels.gpu import shared_memory


@dataclass(frozen=True)
class Config:
    """Tiles ``block_m × block_n`` of the output, shared by ``warps_m × warps_n`` warps.

    A step is ``block_k`` bytes of an activation row, with ``stages`` steps in shared memory; ``group_m`` rows of tiles
    share L2.
    """

    block_m: int
    block_n: int
    block_k: int
    warps_m: int
    warps_n: int
    stages: int
    group_m: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps_m * self.warps_n

    @property
    def tile(self) -> str:
        """In words, e.g. ``128×256×64 B, 2×4 warps, 4 stages``."""
        sizes = f"{self.block_m}×{self.block_n}×{self.block_k} B"
        return f"{sizes}, {self.warps_m}×{self.warps_n} warps, {self.stages} stages"

    def constants(self) -> dict[str, int]:
        """What the kernel is compiled with."""
        names = "block_m", "block_n", "block_k", "warps_m", "warps_n", "stages", "group_m"
        return {name.upper(): getattr(self, name) for name in names}

    def shared_memory(self, task: Task) -> int:
        """Bytes for a block."""
        weight = self.block_k // 2 if task.decodes else self.block_k
        return self.stages * (self.block_m * self.block_k + self.block_n * weight)


@dataclass(frozen=True)
class Task:
    """A product to choose for, e.g. ``Task(16, 12288, 3072, 1, False, False, True)`` for W4A8.

    Args:
        tokens: rows of the output.
        out_features: its columns.
        width: channels that share all scales.
        parts: how many times ``width`` there are.
        grouped: whether a weight's scale changes from part to part.
        packed: whether activation codes lie two a byte, and INT4 tensor cores multiply.
        decodes: whether the loop makes bytes of a weight's nibbles.
    """

    tokens: int
    out_features: int
    width: int
    parts: int
    grouped: bool
    packed: bool
    decodes: bool

    @property
    def width_bytes(self) -> int:
        """Of activation codes in a part."""
        return self.width // 2 if self.packed else self.width


_REGISTERS = 255
"""A thread can have."""
_OTHER_REGISTERS = 56
"""Addresses, counters, and what an epilogue works with."""
_CALLED = 24
"""More from 9.0 on, where the compiler calls a function for each product of nibbles."""
_MOST_THREADS = 512
"""Of a block: more would leave a thread too few registers for an epilogue."""
_WIDE = 8192
"""Output channels from which tiles of 64 are enough blocks to fill a GPU."""
_UNPACK_FROM = 2048
"""Tokens from which weights are unpacked first.

Unpacking moves 1.5 bytes a weight, 0.75 to 1.5 ps at 1 to 2 TB/s; a token costs 2 operations a weight, 0.004 ps at 500
Top/s. If decoding takes a tenth of the loop, both routes cost the same at 2,000 to 4,000 tokens. To be measured.
"""
_UNPACK_FROM_HOPPER = 256
"""The same on 9.x, whose fastest product takes weights from shared memory alone: decoded ones pass through it twice."""


def is_legal(config: Config, task: Task, target: int) -> bool:
    """Whether ``config`` compiles for compute capability ``target`` without spilling, fits, and divides its work."""
    m, n = config.block_m // config.warps_m, config.block_n // config.warps_n
    if m % 16 or n % 16 or config.threads > _MOST_THREADS:
        return False
    if task.width_bytes % config.block_k or config.block_k % (64 if task.decodes else 32):
        return False
    if config.shared_memory(task) > shared_memory(target):
        return False
    called = _CALLED if task.packed and target >= 90 else 0
    return _registers(config, task) + called <= min(_REGISTERS, 65536 // config.threads)


def choose(task: Task, device: torch.device) -> Config:
    """The tiles of a product on ``device``."""
    return rule(task, target_of(device))


def unpack_from(device: torch.device) -> int:
    """Tokens from which a weight is unpacked before its product, not in the product's loop."""
    return _UNPACK_FROM_HOPPER if target_of(device) // 10 == 9 else _UNPACK_FROM


@lru_cache
def rule(task: Task, target: int) -> Config:
    """The first legal of a list.

    Many tokens are bound by operations: the largest tile goes first, since an operand's bytes are moved once a tile.
    Few are bound by the bytes of the weight: a narrow tile, so that every multiprocessor has a block, and deep steps,
    so that each block has some 16 KB on their way.
    """
    if task.tokens > 64:
        tiles = [(128, 256, 2, 4), (128, 128, 2, 4), (128, 64, 4, 2), (64, 64, 2, 2)]
        steps = [(128, 4), (128, 3), (64, 4), (64, 3), (32, 4)]
    else:
        rows = min(max(16, power_of_two(task.tokens)), 64)
        columns = 64 if task.out_features >= _WIDE else 32
        tiles = [(rows, columns, 1, columns // 16)]
        steps = [(256, 4), (128, 6), (64, 6), (32, 6)]
    configs = (Config(m, n, k, wm, wn, stages, 8) for m, n, wm, wn in tiles for k, stages in steps)
    return next(config for config in configs if is_legal(config, task, target))


def _registers(config: Config, task: Task) -> int:
    """About what a thread needs: sums and totals, scales, operands of a step, and where its copies come from."""
    m, n = config.block_m // config.warps_m, config.block_n // config.warps_n
    sums = m * n // 32 * (2 if task.parts > 1 else 1)
    scales = m // 4 + n // 2 + 4 if task.grouped else m // 8 if task.parts > 1 else 0
    operands = m // 4 + n // 4 + (m // 4 + 8 if task.decodes else 0)
    copies = config.shared_memory(task) // config.stages // (16 * config.threads)
    return sums + scales + operands + 2 * copies + _OTHER_REGISTERS
