"""From disk to disk: the tensors of load + quantize + save, whatever kills it, and one clear error for what is broken."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from dvdq_models import DvdqError, Recipe, load, load_pipeline, quantize, save
from dvdq_models.checkpoint import stored_dtype
from dvdq_models.checkpoint.checksums import SUMS, write_sums
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import INDEX
from dvdq_models.streaming import quantize_checkpoint

FILE = f"{WEIGHTS}.safetensors"
RECIPE = Recipe.named("dvd-quant", "W4A6")


def in_memory(folder: Path, destination: Path, recipe: Recipe = RECIPE) -> Path:
    model_class = WanTransformer3DModel
    return save(quantize(model_class.from_pretrained(folder, dtype=stored_dtype(folder)), recipe), destination)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def assert_same_tensors(first: Path, second: Path) -> None:
    found, expected = tensors_of(first), tensors_of(second)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, name) == (tensor.dtype, name)
        assert torch.equal(found[name], tensor), name


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(transformer: Any, tmp_path: Path) -> Path:
    """A transformer in several shards, in bfloat16 but for what diffusers keeps in float32."""
    for name, parameter in transformer.named_parameters():
        if not set(transformer._keep_in_fp32_modules) & set(name.split(".")):
            parameter.data = parameter.data.to(torch.bfloat16)
    transformer.save_pretrained(tmp_path / "full", max_shard_size="400KB")
    assert (tmp_path / "full" / INDEX).is_file()
    return tmp_path / "full"


@pytest.mark.parametrize("recipe", [RECIPE, Recipe.named("quarot", "W4A4")], ids=lambda recipe: recipe.name)
def test_streaming_is_load_quantize_save(folder: Path, tmp_path: Path, recipe: Recipe) -> None:
    report = quantize_checkpoint(folder, tmp_path / "q", recipe)
    expected = in_memory(folder, tmp_path / "expected", recipe)
    assert_same_tensors(tmp_path / "q", expected)
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "q", expected))
    theirs.pop("_name_or_path")
    assert ours == theirs
    assert report.bytes_written == sum(t.nbytes for t in tensors_of(expected).values())
    assert report.bytes_read == sum(t.nbytes for t in tensors_of(folder).values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "full", "q"]
