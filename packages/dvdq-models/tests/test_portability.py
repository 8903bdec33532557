"""What Windows and macOS do not have is taken away: checkpoints are written, resumed and read all the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dvdq_models import Recipe, load, quantize, save
from dvdq_models.streaming import quantize_checkpoint, quantizer

RECIPE = Recipe.named("minmax", "W4A6")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No positional writes, no descriptor of a folder, no syncing of what was opened to read, no ``st_blocks``."""
    for name in ("pwrite", "pread", "ftruncate", "posix_fallocate", "fdatasync", "sendfile"):
        monkeypatch.delattr(os, name, raising=False)
    opened, sync, stat = os.open, os.fsync, os.stat

    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *args, **kwargs)

    def fsync(descriptor: int) -> None:
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        sync(descriptor)

    class Stat:
        def __init__(self, real: os.stat_result) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            if name == "st_blocks":
                raise AttributeError(name)
            return getattr(self._real, name)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("dvdq_models.streaming.quantizer.Path.stat", lambda self, **k: Stat(stat(self, **k)))


@pytest.mark.usefixtures("windows")
def test_saving_streaming_and_going_on(
    transformer: Any, call: Callable[..., torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer.save_pretrained(tmp_path / "full")
    with monkeypatch.context() as patch:
        patch.setattr(quantizer.WeightFiles, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(tmp_path / "full", tmp_path / "streamed", RECIPE)
    assert quantize_checkpoint(tmp_path / "full", tmp_path / "streamed", RECIPE).resumed_bytes > 0
    save(quantize(transformer, RECIPE), tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "saved", "streamed"]
    assert torch.equal(call(load(tmp_path / "streamed")), call(load(tmp_path / "saved")))
