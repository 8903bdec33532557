"""Tensors of safetensors files that stay on the disk until each is read, by itself and into memory of its own.

None of them is mapped: a mapped file counts as this process's memory for as long as it is open. Whoever wants that for
tensors that are looked at again and again asks :func:`map_file`.
"""

from __future__ import annotations

import json
import mmap
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import DTYPES, INDEX, TensorType
from dvdq_models.files.text import one_line, read_json
from dvdq_reference.spec.errors import DvdqError

_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
_LONGEST_HEADER = 10**8
"""Bytes, as of safetensors itself: what says more is another kind of file, and is not read to find out."""
_POINTER = b"version https://git-lfs"
"""How a pointer begins that git clone leaves in place of a large file, where git-lfs is not installed."""


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
    with _opening(operation, path, "a safetensors file, complete"):
        entries, _, base = _header(path)
        tensors = {name: _lazy(operation, path, name, entry, base) for name, entry in entries.items()}
    return tensors


def map_file(operation: str, path: Path, expected: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata of one file, and its tensors as views of it that must not be written to.

    Memory holds what is looked at, and only for as long as there is room: the file is mapped for reading alone. Linux
    refuses a mapping that could be written to, as safetensors' own, unless all of the file fits into main memory.

    Raises:
        DvdqError: what :func:`open_file` refuses; ``expected`` is for errors.
    """
    with _opening(operation, path, expected), path.open("rb") as file:
        entries, metadata, base = _header(path)
        types = {name: _lazy(operation, path, name, entry, base).type for name, entry in entries.items()}
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tensors = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")
            for name, found in types.items():
                where = {"count": prod(found.shape), "offset": base + entries[name]["data_offsets"][0]}
                tensors[name] = torch.frombuffer(pages, dtype=found.dtype, **where).view(found.shape)
    return metadata, tensors


def check_file(operation: str, path: Path) -> None:
    """Check that a file opens: no pointer of git-lfs stands in its place, and safetensors of any dtype are complete."""
    complete = path.suffix == ".safetensors"
    with _opening(operation, path, "a safetensors file, complete" if complete else "a file that opens"):
        if complete:
            _header(path)
        else:
            _refuse_pointer(path)


def _header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """What the header says of each tensor, its metadata, where data begin; a ValueError and others if it is none."""
    _refuse_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{size} bytes, a header of {length}")
        entries: dict[str, Any] = json.loads(file.read(length), parse_constant=_refuse, object_pairs_hook=_unique)
    json.dumps(entries, ensure_ascii=False).encode()  # half a surrogate is no name
    metadata = entries.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that is no text")
    end = 0
    for begin, stop in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if begin != end:
            raise ValueError(f"a gap or an overlap at byte {end} of its data")
        end = stop
    if 8 + length + end != size:
        raise ValueError(f"{size} bytes where its header says {8 + length + end}")
    return entries, metadata, 8 + length


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} in its header")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name twice in its header")
    return values


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError("a pointer of git-lfs in its place, which git lfs pull replaces")


@contextmanager
def _opening(operation: str, path: Path, expected: str) -> Iterator[None]:
    """Say in our words what goes wrong while a file is opened."""
    try:
        yield
    except DvdqError:
        raise
    except OSError as error:
        got = "none" if isinstance(error, FileNotFoundError) else error.strerror
        raise DvdqError(operation, where=str(path), expected=expected, got=got) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise DvdqError(operation, where=str(path), expected=expected, got=one_line(error)) from error


def open_folder(operation: str, folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a folder: of diffusers' file or index if it has them, else of whatever safetensors there are.

    Raises:
        DvdqError: no weights, an index that cannot be read or that names a file outside the folder, a tensor that it
            lists and its shard lacks, or that a shard holds and it does not list, several indices, a tensor that two
            files hold; and whatever :func:`open_file` finds.
    """
    index = _index_of(operation, folder)
    if index is None:
        return _open_files(operation, folder)
    weight_map = _read_index(operation, index)
    tensors: dict[str, LazyTensor] = {}
    for shard in sorted(set(weight_map.values())):
        found = open_file(operation, folder / shard)
        listed = {name for name, file in weight_map.items() if file == shard}
        where = str(folder / shard)
        if missing := sorted(listed - found.keys()):
            raise DvdqError(operation, where=where, expected=f"tensor {missing[0]}", got=f"{len(missing)} missing")
        if others := sorted(found.keys() - listed):
            raise DvdqError(operation, where=where, expected=f"tensors that {index.name} lists", got=others[0])
        tensors |= found
    return tensors


def _index_of(operation: str, folder: Path) -> Path | None:
    if (folder / INDEX).is_file():
        return folder / INDEX
    if (folder / f"{WEIGHTS}.safetensors").is_file():
        return None
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise DvdqError(operation, where=str(folder), expected="one index of weights", got=[i.name for i in indices])
    return indices[0] if indices else None


def _open_files(operation: str, folder: Path) -> dict[str, LazyTensor]:
    own = folder / f"{WEIGHTS}.safetensors"
    files = [own] if os.path.lexists(own) else sorted(folder.glob("*.safetensors"))
    if not files:
        got = "pickled ones, which are never read" if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")) else "none"
        raise DvdqError(operation, where=str(folder), expected="weights (.safetensors)", got=got)
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        found = open_file(operation, file)
        if twice := sorted(tensors.keys() & found.keys()):
            got = f"{twice[0]} also in {Path(tensors[twice[0]].where.rpartition(': ')[0]).name}"
            raise DvdqError(operation, where=str(file), expected="parts of one model in one folder", got=got)
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


def index_files(operation: str, index: Path) -> list[str]:
    """The files that an index lists, sorted."""
    return sorted(set(_read_index(operation, index).values()))


def _read_index(operation: str, index: Path) -> dict[str, str]:
    try:
        weight_map: dict[str, str] = read_json(operation, index)["weight_map"]
        names = sorted(set(weight_map.values()))
    except DvdqError:
        raise
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
    if not all(type(number) is int and number >= 0 for number in (*found.shape, begin, end)):
        raise ValueError(f"{name} of shape {list(found.shape)} at {begin} to {end}")
    # What torch counts with, which a tensor without values need not stay below.
    if prod(max(number, 1) for number in found.shape) >= 2**63:
        raise ValueError(f"{name} of shape {list(found.shape)}, beyond 64 bits")
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
