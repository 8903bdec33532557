"""What a GPU would be asked: CuPy is a stand-in, as there need be none here."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dvdq_kernels import gpu
from dvdq_kernels.backends.cupy import launch as launching
from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_reference.spec.errors import DvdqError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What CuPy was asked, in order, on a GPU of compute capability 9.0."""
    found: list[tuple[str, Any]] = []

    @contextmanager
    def entered(name: str, value: Any) -> Any:
        found.append((name, value))
        yield

    class Function:
        shared_size_bytes = 1024

        def __setattr__(self, name: str, value: int) -> None:
            found.append((name, value))

        def __call__(self, *arguments: Any, shared_mem: int) -> None:
            found.append(("call", (*arguments, shared_mem)))

    class Module:
        def __init__(self, path: str) -> None:
            found.append(("module", path))

        def get_function(self, name: str) -> Function:
            found.append(("function", name))
            return Function()

    streams = SimpleNamespace(from_external=lambda stream: entered("stream", stream))
    cuda = SimpleNamespace(Device=lambda index: entered("device", index), Stream=streams)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, RawModule=Module))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "torch's")
    monkeypatch.setattr(launching, "target_of", lambda device: 90)
    monkeypatch.setattr(launching, "cubin", lambda source, target: Path(f"{target}.cubin"))
    monkeypatch.setattr(launching, "is_emulated", lambda: False)
    launching._function.cache_clear()
    yield found
    launching._function.cache_clear()


def of(x: torch.Tensor, shared: int, grid: int = 3) -> Launch:
    return Launch("unpack", "unpack.cu", (x, None, np.int64(5)), {"PACKED": True, "OFFSET": 8}, grid, 256, shared)


def test_a_kernel_starts_on_torchs_stream_with_pointers_and_numbers(asked: list[tuple[str, Any]]) -> None:
    x = torch.zeros(4)
    launch(of(x, 64))
    names = [name for name, _ in asked]
    assert names == ["device", "module", "function", "device", "stream", "call"]
    assert asked[1:3] == [("module", "90.cubin"), ("function", "unpack")]
    assert dict(asked)["stream"] == "torch's"
    grid, threads, arguments, shared = dict(asked)["call"]
    assert (grid, threads, shared) == ((3,), (256,), 64)
    assert [int(value) for value in arguments] == [x.data_ptr(), 0, 5]
    assert [value.dtype.itemsize for value in arguments] == [8, 8, 8]


def test_a_kernel_is_loaded_once_and_asks_for_more_shared_memory_where_it_needs_more(
    asked: list[tuple[str, Any]],
) -> None:
    limits = "max_dynamic_shared_size_bytes"
    for shared in (6144, 49152, 6144):
        launch(of(torch.zeros(4), shared))
    assert [name for name, _ in asked if name in ("function", limits)] == ["function"]
    for shared in (49153, 200_000, 60_000):
        launch(of(torch.zeros(4), shared))
    assert [value for name, value in asked if name == limits] == [232448 - 1024], "what it has besides counts too"
    assert [value[-1] for name, value in asked if name == "call"] == [6144, 49152, 6144, 49153, 200_000, 60_000]


def test_a_first_call_while_a_graph_is_captured_is_refused(
    asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = of(torch.zeros(4), 64)
    monkeypatch.setattr(gpu, "is_capturing", lambda device: True)
    with pytest.raises(DvdqError, match=r"unpack: a CUDA graph on .*: expected the same call once"):
        launch(x)
    assert asked == []
    monkeypatch.setattr(gpu, "is_capturing", lambda device: False)
    launch(x)
    monkeypatch.setattr(gpu, "is_capturing", lambda device: True)
    launch(x)
    assert [name for name, _ in asked if name in ("function", "call")] == ["function", "call", "call"]


def test_nothing_starts_on_an_empty_grid(asked: list[tuple[str, Any]]) -> None:
    launch(of(torch.zeros(4), 0, grid=0))
    assert asked == []
