"""Compiled kernels on disk: whole whoever makes them at once, made anew where they are damaged, done without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dvdq_kernels as kernels
from dvdq_kernels.registry import forget
from dvdq_reference.spec.recipe import Rotation

pytest.importorskip("llvmlite")

from dvdq_kernels.backends.cpu import compilation

X, ROTATION = torch.randn(3, 256, generator=torch.Generator().manual_seed(0)), Rotation("full", seed=1)
TOGETHER = """
import sys
import torch, dvdq_kernels as kernels
from dvdq_kernels.backends.cpu import operators
from dvdq_reference.spec.recipe import Rotation
x, rotation = torch.randn(3, 256, generator=torch.Generator().manual_seed(0)), Rotation("full", seed=1)
print("ready", flush=True)
sys.stdin.readline()
torch.save(kernels.rotate(x, rotation, backend="cpu"), sys.argv[1])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVDQ_KERNELS_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def rotated_anew() -> torch.Tensor:
    """As a process that has just started would."""
    compilation.kernel.cache_clear()
    forget()
    return kernels.rotate(X, ROTATION, backend="cpu")


def test_processes_that_start_at_once_share_it(folder: Path, tmp_path: Path) -> None:
    results = [tmp_path / f"{i}.pt" for i in range(2)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", TOGETHER, str(result)], **pipes) for result in results]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait() for process in started] == [0, 0]
    for process in started:
        process.stdin.close()
        process.stdout.close()
    [kept] = folder.iterdir()
    before = kept.read_bytes()
    expected = rotated_anew()
    assert all(torch.equal(torch.load(result), expected) for result in results)
    assert [path.read_bytes() for path in folder.iterdir()] == [before]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: bytes(len(data))],
    ids=["empty", "half", "zeros"],
)
def test_a_damaged_file_is_made_anew(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    expected = rotated_anew()
    [kept] = folder.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    # LLVM ends the process over such a file.
    assert torch.equal(rotated_anew(), expected)
    assert kept.read_bytes() == whole


def test_without_a_folder_kernels_are_compiled_anew(folder: Path) -> None:
    folder.write_text("a file stands where the folder would")
    assert torch.equal(rotated_anew(), kernels.rotate(X, ROTATION, backend="cpu"))
    assert folder.is_file()
