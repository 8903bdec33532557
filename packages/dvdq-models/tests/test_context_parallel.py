"""One video on two devices: the tokens are shared out, and nothing of the result changes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import TensorParallelConfig

from dvdq_models import DvdqError, Recipe, quantize

SCRIPT = str(Path(__file__).with_name("context_parallel.py"))


def _ranks(count: int, folder: Path) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    command = [sys.executable, SCRIPT]
    running = [subprocess.Popen([*command, str(r), str(count), str(port), str(folder)]) for r in range(count)]
    assert [process.wait(timeout=300) for process in running] == [0] * count
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def test_two_ranks_give_what_one_gives_bit_for_bit(tmp_path: Path) -> None:
    (alone,) = _ranks(1, tmp_path / "one")
    assert set(alone["bits"]) == {4, 8}
    for rank in _ranks(2, tmp_path / "two"):
        assert rank["bits"] == alone["bits"]
        assert all(torch.equal(a, b) for a, b in zip(rank["outputs"], alone["outputs"], strict=True))


def test_tensor_parallelism_is_refused(transformer: Any) -> None:
    model = quantize(transformer, Recipe.named("minmax"))
    with pytest.raises(DvdqError, match="enable_parallelism: config: expected context parallelism"):
        model.enable_parallelism(config=TensorParallelConfig(tp_degree=2))


def test_tensor_parallelism_is_refused_on_load(transformer: Any, tmp_path: Path) -> None:
    quantize(transformer, Recipe.named("minmax")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tensor parallelism"):
        type(transformer).from_pretrained(tmp_path, parallel_config=TensorParallelConfig(tp_degree=2))
