"""Which tiles the products run with: what is legal, and a rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from dvdq_kernels.backends.triton.target import target_of
from dvdq_kernels.call import power_of_two
from dvdq_kernels.gpu import shared_memory


@dataclass(frozen=True)
class Config:
    """Tiles ``block_m × block_n`` of the output, ``block_k`` channels a step; ``group_m`` rows of tiles share L2."""

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    warps: int
    stages: int

    def blocks(self) -> dict[str, int]:
        """What a kernel takes as constants."""
        return {name.upper(): getattr(self, name) for name in ("block_m", "block_n", "block_k", "group_m")}


@dataclass(frozen=True)
class Task:
    """A product to choose for, e.g. ``Task("integer", 16, 12288, 3072, 1, False, 1, 2, True)`` for W4A8.

    Args:
        kernel: ``"integer"`` or ``"weight_only"``.
        tokens: rows of the output.
        out_features: its columns.
        width: channels that share all scales.
        parts: how many times ``width`` there are.
        grouped: whether a weight's scale changes from part to part.
        x_bytes: of an activation.
        per_byte: weights in a byte.
        decodes: whether the loop decodes weights, or multiplies them as they are.
    """

    kernel: str
    tokens: int
    out_features: int
    width: int
    parts: int
    grouped: bool
    x_bytes: int
    per_byte: int
    decodes: bool


_SUMS = 128
"""Sums, int32 and float32 together, that a thread can hold besides addresses; more would be spilled."""
_LEAST_SUMS = 4
"""What one tensor core instruction leaves in a thread: below, warps repeat each other's work."""
_ROW_VECTORS = 192
"""Registers on 10.x, where a thread's sums are one row, for those and the scale, offset or bias of each column."""
_DECODED = 120
"""Sums and operands a thread can hold where it decodes; half as many in float32, whose products it adds up itself."""
_WIDE = 8192
"""Output channels from which tiles of 32 are enough programs to fill a GPU."""
_UNPACK_FROM = 256
"""Tokens from which weights are unpacked first.

Unpacking moves 1.5 bytes a weight, and each token costs 2 operations a weight in either loop: at 3 TB/s, and with a
loop of 1.2 against one of 0.3 Pop/s that decodes as it goes, both routes cost the same at some 100 tokens; a launch
more, of 2 µs, is as long as another 100 in a 3072² layer. To be measured.
"""


def is_legal(config: Config, task: Task, target: int) -> bool:
    """Whether ``config`` compiles for compute capability ``target`` without spilling, fits, and leaves no step idle."""
    m, n, k = config.block_m, config.block_n, config.block_k
    if not _least_k(task) <= k <= max(_least_k(task), power_of_two(task.width)):
        return False
    # Weights that are decoded on their way to the tensor cores pass through shared memory a second time.
    decoded = n * k * task.x_bytes if task.decodes else 0
    loop = config.stages * (m * k * task.x_bytes + n * k // task.per_byte) + decoded
    if max(loop, 4 * m * n) > shared_memory(target):
        return False
    sums = m * n // (32 * config.warps)
    held = sums if task.parts == 1 else 2 * sums
    if target // 10 == 10 and sums * (5 if task.grouped else 3) > _ROW_VECTORS:
        return False
    # Before 9.0 and after 10.x a step's operands are in registers too, beside the scales of a grouped weight.
    if task.grouped and target // 10 not in (9, 10) and held + k // 2 > (160 if target < 90 else _SUMS):
        return False
    if task.decodes and sums + _operands(config, task) > (_DECODED if task.x_bytes <= 2 else _DECODED // 2):
        return False
    return sums >= _LEAST_SUMS and held <= _SUMS


def choose(task: Task, device: torch.device) -> Config:
    """The tiles of a product on ``device``."""
    return rule(task, target_of(device))


def unpack_from(device: torch.device) -> int:
    """Tokens from which a weight is unpacked before its product, not in the product's loop."""
    return _UNPACK_FROM


@lru_cache
def rule(task: Task, target: int) -> Config:
    """The first legal of a list.

    Many tokens are bound by operations: the largest tile goes first, since an operand's bytes are moved once a tile.
    Few are bound by the bytes of the weight: a narrow tile, so that every multiprocessor has a program, and deep steps,
    so that each program has some 16 KB on their way.
    """
    if task.tokens > 64 and not task.decodes:
        tiles = [(128, 256, 8), (128, 128, 8), (128, 64, 8), (64, 64, 4)]
        steps = [(128, 4), (128, 3), (64, 4), (64, 3), (32, 3)]
    else:
        rows = min(max(16, power_of_two(task.tokens)), 64 if task.x_bytes <= 2 else 16)
        columns = 64 if task.out_features >= 2 * _WIDE else 32 if task.out_features >= _WIDE or rows > 16 else 16
        tiles = [(rows, columns, min(4, columns // 8)), (rows, 16, 2)]
        steps = [(8192 // columns, 4), (128, 6), (128, 3), (64, 6), (64, 2), (32, 2), (16, 2)]
    whole = task.width & -task.width
    widest = whole if whole >= _least_k(task) else max(_least_k(task), power_of_two(task.width))
    configs = (Config(m, n, min(k, widest), 8, warps, stages) for m, n, warps in tiles for k, stages in steps)
    return next(config for config in configs if is_legal(config, task, target))


def _operands(config: Config, task: Task) -> int:
    """Registers for a thread's share of a step's operands; warps side by side hold the same activations."""
    x = config.block_m * task.x_bytes // min(config.warps, config.block_m // 16)
    weight = config.block_n * (1 if task.kernel == "integer" else max(4, task.x_bytes)) // config.warps
    return config.block_k * (x + weight) // 128


def _least_k(task: Task) -> int:
    """The fewest channels a step of a tensor core product can have; packed weights are multiplied half by half."""
    return max(16, 32 // task.x_bytes) * task.per_byte
