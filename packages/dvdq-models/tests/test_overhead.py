"""What a layer costs before its kernels start, in Python calls: a small one takes no longer than that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import dvdq_kernels as kernels
from dvdq_kernels.backend import Backend, Preference
from dvdq_kernels.registry import registered
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.recipe import ActivationRule, Recipe

RECIPE = Recipe.named("dvd-quant", "W4A6")
HIGH, LOW = RECIPE.schedule.high, RECIPE.schedule.low
FOUR_BITS = ActivationRule(4, 128)


@torch.no_grad()
def python_calls(call: Callable[..., object], *args: Any, **options: Any) -> int:
    """How many Python functions run, that which is called and a backend's among them, once all is known."""
    call(*args, **options)
    seen: list[str] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            seen.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        call(*args, **options)
    finally:
        sys.setprofile(None)
    return len(seen)


@pytest.fixture(autouse=True)
def instant() -> Iterator[None]:
    """A backend that ``"auto"`` takes and that has nothing to do."""
    operators = SimpleNamespace(
        rotate_quantize=lambda x, *_: (torch.empty(3, 1536).char(), torch.empty(3, 12), torch.empty(3)),
        integer_linear=lambda *_: torch.empty(3, 8),
        float_linear=lambda *_: torch.empty(3, 8),
    )
    with registered(Backend("instant", lambda: operators, preference=lambda call: Preference(99))):
        yield


def layer(*, weight_only: bool, backend: str) -> QuantizedLinear:
    linear = nn.Linear(1536, 8)
    made = QuantizedLinear.like(linear, RECIPE, ActivationState(HIGH), weight_only=weight_only, backend="torch")
    made.quantize_(linear.weight.detach())
    made.backend = backend
    return made


@pytest.mark.parametrize("backend", ["auto", "instant"])
@pytest.mark.parametrize(("rule", "most"), [(FOUR_BITS, 22), (None, 9)], ids=str)
def test_a_linear_is_few_calls_and_to_decide_is_none(rule: ActivationRule | None, most: int, backend: str) -> None:
    x, weight = torch.randn(3, 1536), layer(weight_only=False, backend=backend).quantized
    options = {"rotation": weight.rotation, "bias": torch.randn(8), "backend": backend}
    assert python_calls(kernels.quantized_linear, x, weight, rule, **options) <= most


@pytest.mark.parametrize("bits", [HIGH, LOW])
@pytest.mark.parametrize(("weight_only", "shared", "most"), [(False, False, 38), (False, True, 31), (True, False, 20)])
def test_a_layer_is_few_calls(weight_only: bool, shared: bool, most: int, bits: int) -> None:
    """Whether its activations were quantized for another layer just before, or not, and at either width."""
    made, x = layer(weight_only=weight_only, backend="auto"), torch.randn(3, 1536)
    made.state.bits = bits
    forward = made if shared else lambda x: made(x.clone())
    assert python_calls(forward, x) - (not shared) <= most
