"""Tensors of safetensors files that stay on the disk until each is read, by itself and into memory of its own.

Nothing is mapped: a mapped file counts as this process's memory for as long as it is open.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import DTYPES, INDEX, TensorType
from dvdq_reference.spec.errors import DvdqError

_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that ``read()`` brings into memory; ``where`` says in which file, and under which name."""

    where: str
    type: TensorType
    read: Callable[[], torch.Tensor]


def open_file(operation: str, path: Path) -> dict[str, LazyTensor]:
    """The tensors of one safetensors file.

    Raises:
        DvdqError: no such file, one that is truncated or no safetensors file, a dtype that is none of ours.
    """
    expected = "a safetensors file, complete"
    if not path.is_file():
        raise DvdqError(operation, where=str(path), expected=expected, got="none")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError(f"{size} bytes, a header of {length}")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if end != size:
            raise ValueError(f"{size} bytes where its header says {end}")
        return {name: _lazy(operation, path, name, entry, 8 + length) for name, entry in entries.items()}
    except DvdqError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DvdqError(operation, where=str(path), expected=expected, got=str(error)) from error


def open_folder(operation: str, folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a transformer's folder: one file, or the shards that an index lists.

    Raises:
        DvdqError: no weights, an index that cannot be read or that names a file outside the folder, a tensor that it
            lists and its shard lacks, or that a shard holds and it does not list; and whatever :func:`open_file` finds.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / f"{WEIGHTS}.safetensors").is_file():
            got = "pickled ones, which are never read" if any(folder.glob("*.bin")) else "none"
            raise DvdqError(operation, where=str(folder), expected=f"weights, {WEIGHTS}.safetensors", got=got)
        return open_file(operation, folder / f"{WEIGHTS}.safetensors")
    weight_map = _read_index(operation, index)
    tensors: dict[str, LazyTensor] = {}
    for shard in sorted(set(weight_map.values())):
        found = open_file(operation, folder / shard)
        listed = {name for name, file in weight_map.items() if file == shard}
        where = str(folder / shard)
        if missing := sorted(listed - found.keys()):
            raise DvdqError(operation, where=where, expected=f"tensor {missing[0]}", got=f"{len(missing)} missing")
        if others := sorted(found.keys() - listed):
            raise DvdqError(operation, where=where, expected=f"tensors that {INDEX} lists", got=others[0])
        tensors |= found
    return tensors


def most_common_dtype(tensors: Mapping[str, LazyTensor]) -> torch.dtype:
    """The dtype of most numbers."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in tensors.values():
        counts[tensor.type.dtype] += tensor.type.nbytes // tensor.type.dtype.itemsize
    return counts.most_common(1)[0][0]


def stored_dtype(folder: str | Path) -> torch.dtype:
    """The dtype of most numbers in a transformer's folder, which diffusers does not look up by itself."""
    return most_common_dtype(open_folder("load", Path(folder)))


def _read_index(operation: str, index: Path) -> dict[str, str]:
    try:
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DvdqError(operation, where=str(index), expected="an index with a weight_map", got=repr(error)) from error
    for name in names:
        if not isinstance(name, str) or PurePosixPath(name).name != name or "\\" in name:
            raise DvdqError(operation, where=str(index), expected="names of files in its own folder", got=repr(name))
    return weight_map


def _lazy(operation: str, path: Path, name: str, entry: Mapping[str, Any], base: int) -> LazyTensor:
    where = f"{path}: {name}"
    if entry["dtype"] not in _DTYPES:
        raise DvdqError(operation, where=where, expected=f"one of {', '.join(_DTYPES)}", got=entry["dtype"])
    begin, end = entry["data_offsets"]
    found = TensorType(tuple(entry["shape"]), _DTYPES[entry["dtype"]])
    if end - begin != found.nbytes:
        raise ValueError(f"{name} in {end - begin} bytes where its shape says {found.nbytes}")

    def read() -> torch.Tensor:
        tensor = torch.empty(found.shape, dtype=found.dtype)
        data = tensor.reshape(-1).view(torch.uint8).numpy().data
        with path.open("rb", buffering=0) as file:
            file.seek(base + begin)
            while data:
                count = file.readinto(data)
                if not count:
                    raise DvdqError(operation, where=where, expected=f"{found.nbytes} bytes", got="a file cut short")
                data = data[count:]
        return tensor

    return LazyTensor(where, found, read)
