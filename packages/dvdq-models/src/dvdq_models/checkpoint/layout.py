"""Where each tensor lies in a checkpoint's files, known before any of them is written.

Tensors fill shards of at most :data:`MAX_SHARD` bytes in the model's order. Inside a shard they are sorted as
safetensors sorts them, by falling dtype and then by name, which keeps each aligned; the bytes are those of its
``save_file``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dvdq_models.checkpoint.format import WEIGHTS

MAX_SHARD = 5 * 10**9
INDEX = f"{WEIGHTS}.safetensors.index.json"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
}
"""What quantized checkpoints, ours and those for others, are made of, by the names of safetensors and in its order."""
FOREIGN = frozenset({torch.float8_e4m3fn, torch.float8_e5m2, torch.int8})
"""Those of them that only the files for others have."""
OF_TORCH = {"format": "pt"}
"""The metadata that transformers' and diffusers' readers look for."""
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype, e.g. ``TensorType((3072, 1), torch.float32)``."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Shard:
    """One file: what stands before the data, and at which byte of the file each tensor begins."""

    name: str
    header: bytes
    offsets: Mapping[str, int]
    size: int


def lay_out(
    tensors: Mapping[str, TensorType],
    max_shard: int | None,
    stem: str = WEIGHTS,
    metadata: Mapping[str, str] = OF_TORCH,
) -> tuple[Shard, ...]:
    """The shards of ``tensors``, which are in the model's order; a tensor larger than a shard has one of its own.

    Without ``max_shard`` it is one file, of the name ``stem``.
    """
    groups: list[dict[str, TensorType]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if max_shard is not None and groups[-1] and filled + tensor.nbytes > max_shard:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += tensor.nbytes
    count = len(groups)
    names = [f"{stem}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    return tuple(
        _shard(name, group, metadata)
        for name, group in zip([f"{stem}.safetensors"] if count == 1 else names, groups, strict=True)
    )


def index_of(shards: tuple[Shard, ...], tensors: Mapping[str, TensorType]) -> dict[str, Any]:
    """What the index of several shards says, as diffusers reads it."""
    weight_map = {name: shard.name for shard in shards for name in shard.offsets}
    return {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: weight_map[name] for name in tensors},
    }


def _shard(name: str, tensors: Mapping[str, TensorType], metadata: Mapping[str, str]) -> Shard:
    ordered = sorted(tensors.items(), key=lambda item: (_RANK[item[1].dtype], item[0]))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for key, tensor in ordered:
        end = begin + tensor.nbytes
        entries[key] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    offsets = {key: len(header) + entries[key]["data_offsets"][0] for key, _ in ordered}
    return Shard(name, header, offsets, len(header) + begin)
