"""Tensors to weight files, in any order, and a quantized transformer to a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch

from dvdq_models.checkpoint.checksums import write_sums
from dvdq_models.checkpoint.format import WEIGHTS, write_config
from dvdq_models.checkpoint.layout import DTYPES, FOREIGN, INDEX, MAX_SHARD, OF_TORCH, TensorType, index_of, lay_out
from dvdq_models.files.atomic import new_folder
from dvdq_models.lora import refuse_adapters
from dvdq_models.switching.hook import hook_of
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe


class WeightFiles:
    """The weight files of one folder, named after ``stem``, headers first; each tensor is then written to its place.

    Headers say ``metadata``, too. Files that are there already keep what was written to them, so that an interrupted
    run goes on. Use as a context manager, and :meth:`finish` when every tensor is written.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorType],
        max_shard: int | None = MAX_SHARD,
        *,
        stem: str = WEIGHTS,
        metadata: Mapping[str, str] = OF_TORCH,
    ) -> None:
        self.folder, self.tensors = folder, tensors
        self.shards = lay_out(tensors, max_shard, stem, metadata)
        self._places = {name: (shard, offset) for shard in self.shards for name, offset in shard.offsets.items()}
        self._files: dict[str, BinaryIO] = {}
        self._dirty: set[str] = set()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            for shard in self.shards:
                path = self.folder / shard.name
                path.touch()
                # No buffer: what is written is the system's, so a kill of this process does not lose it.
                file = opening.enter_context(path.open("r+b", buffering=0))
                self._files[shard.name] = file
                _write_at(file, shard.header, 0)
                file.truncate(shard.size)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor, from any device, to its place; its shape and dtype must be those of the layout."""
        shard, offset = self._places[name]
        wanted, got = self.tensors[name], TensorType(tuple(tensor.shape), tensor.dtype)
        if got != wanted:
            raise DvdqError("save", where=f"{shard.name}: {name}", expected=wanted, got=got)
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        _write_at(self._files[shard.name], data.data, offset)
        self._dirty.add(shard.name)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        for name in self._dirty:
            os.fsync(self._files[name].fileno())
        self._dirty.clear()

    def finish(self, config: dict[str, Any], recipe: Recipe) -> None:
        """Write what stands beside the weights: the index of several shards, checksums, ``config.json``."""
        self.sync()
        if len(self.shards) > 1:
            index = index_of(self.shards, self.tensors)
            (self.folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_sums(self.folder)
        write_config(self.folder, config, recipe)


def save(transformer: Any, folder: str | Path) -> Path:
    """Write a quantized transformer to ``folder``, which must not exist yet.

    Raises:
        DvdqError: a model that carries LoRA, or a folder that exists or cannot be made.
    """
    refuse_adapters("save", transformer)
    recipe = hook_of(transformer).recipe
    state: dict[str, torch.Tensor] = transformer.state_dict()
    for name, tensor in state.items():
        if tensor.device.type == "meta" or tensor.dtype not in DTYPES.keys() - FOREIGN:
            got = "one that is offloaded" if tensor.device.type == "meta" else tensor.dtype
            raise DvdqError("save", where=name, expected="a tensor in memory, in 16 bits or more", got=got)
    types = {name: TensorType(tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    with new_folder(Path(folder)) as staging, WeightFiles(staging, types) as files:
        for name, tensor in state.items():
            files.write(name, tensor)
        files.finish(json.loads(transformer.to_json_string()), recipe)
    return Path(folder)


def _write_at(file: BinaryIO, data: bytes | memoryview, offset: int) -> None:
    file.seek(offset)
    while data:
        data = data[file.write(data) :]
