"""What kernels read at every call stays where it is, for a CUDA graph that was captured long ago."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

import dvdq_kernels as kernels
from dvdq_kernels import gpu, refusals, sharing
from dvdq_kernels.kept import kept
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Rotation

CPU = torch.device("cpu")
Arguments = Callable[[Any, int], tuple[Any, ...]]
READ: list[tuple[str, Arguments]] = [
    ("torch.hadamard", lambda module, seed: (256, "full", seed, torch.float32, CPU)),
    ("cupy.rotation_tiles", lambda module, seed: (module.Tile(4, 64, True), "full", seed, 2, CPU)),
    ("triton.tiles", lambda module, seed: (256, "full", seed, torch.float32, CPU)),
]


@pytest.mark.parametrize(("module", "arguments"), READ, ids=[name for name, _ in READ])
def test_a_kept_tensor_is_the_same_after_a_thousand_others(module: str, arguments: Arguments) -> None:
    if module.startswith("triton") and refusals.absence("triton"):
        pytest.skip("Triton is not installed")
    found = import_module(f"dvdq_kernels.backends.{module}")
    first = found._signs(*arguments(found, 1_000_000))
    for seed in range(1000):
        found._signs(*arguments(found, seed))
    assert found._signs(*arguments(found, 1_000_000)) is first


def test_what_is_not_there_yet_is_not_made_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    @kept
    def _factors(size: int, device: torch.device) -> torch.Tensor:
        made.append(size)
        return torch.zeros(size, device=device)

    before = _factors(4, CPU)
    monkeypatch.setattr(gpu, "is_capturing", lambda device: True)
    assert _factors(4, CPU) is before
    with pytest.raises(DvdqError, match="factors: a CUDA graph on cpu: expected the same call once"):
        _factors(5, CPU)
    monkeypatch.setattr(gpu, "is_capturing", lambda device: False)
    assert _factors(5, CPU).shape == (5,)
    assert made == [4, 5]


def test_kept_tensors_may_be_used_where_gradients_are_recorded() -> None:
    with torch.inference_mode():
        kernels.rotate(torch.ones(1, 512), Rotation("full", seed=77), backend="torch")
    x = torch.ones(1, 512, requires_grad=True)
    assert kernels.rotate(x.detach(), Rotation("full", seed=77), backend="torch").isfinite().all()


def test_a_captured_graph_makes_its_codes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be those of the call before it, whatever the activations are when it is replayed."""
    ran = []
    monkeypatch.setattr(sharing, "run", lambda name, x, *request: ran.append(request) or (x.clone(),) * 3)
    x, request = torch.ones(2, 64), (8, None, "absmax", None, None, False)
    for capturing, calls in ((False, 1), (False, 1), (True, 2), (True, 2), (False, 3)):
        monkeypatch.setattr(sharing, "is_capturing", lambda device, capturing=capturing: capturing)
        sharing.rotate_quantize_once(x, *request)
        assert len(ran) == calls
    assert set(ran) == {request}
