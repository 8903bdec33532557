"""The same activations are quantized once, and only the same."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dvdq_kernels.backend import Backend
from dvdq_kernels.registry import operators, registered
from dvdq_models import Recipe, quantize
from dvdq_models.layers.activation_state import ActivationState
from dvdq_reference.spec.recipe import ActivationRule, Rotation

RULE, ROTATION = ActivationRule(4, 128), Rotation("full")


class Count(TorchDispatchMode):
    """How often activations were quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.ops.dvdq.rotate_quantize.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def count() -> Iterator[Count]:
    with Count() as mode:
        yield mode


def test_the_same_tensor_is_quantized_once(count: Count) -> None:
    state, x = ActivationState(4), torch.randn(3, 256)
    first = state.quantize(x, RULE, ROTATION, "auto")
    assert state.quantize(x, RULE, ROTATION, "auto").codes is first.codes
    assert count.calls == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: (x.clone(), RULE, ROTATION, "auto"),
        lambda x: (x.view(3, 256), RULE, ROTATION, "auto"),
        lambda x: (x.mul_(2), RULE, ROTATION, "auto"),
        lambda x: (x, ActivationRule(8, 128), ROTATION, "auto"),
        lambda x: (x, RULE, None, "auto"),
        lambda x: (x, RULE, ROTATION, "torch"),
    ],
    ids=["equal", "view", "written to", "rule", "rotation", "backend"],
)
def test_anything_else_is_quantized_again(change: Callable[[torch.Tensor], tuple[Any, ...]], count: Count) -> None:
    state, x = ActivationState(4), torch.randn(3, 256)
    state.quantize(x, RULE, ROTATION, "auto")
    again = change(x)
    got = state.quantize(*again)
    assert count.calls == 2
    assert torch.equal(got.codes, ActivationState(4).quantize(*again).codes)


def test_packed_codes_are_shared_as_they_are() -> None:
    """A compiled graph has them too: how they lie is known before it runs."""
    right = operators("torch")
    with registered(
        Backend("narrow", lambda: right, lambda: None, takes_packed=True, packs=lambda place, bits: bits <= 4)
    ):
        state, x = ActivationState(4), torch.randn(3, 256)
        first = state.quantize(x, RULE, ROTATION, "narrow")
        assert first.packed
        assert torch.equal(first.values, state.quantize(x, RULE, ROTATION, "torch").codes)
        assert not state.quantize(x, ActivationRule(8, 128), ROTATION, "narrow").packed
        compiled = torch.compile(
            lambda x: state.quantize(x, RULE, ROTATION, "narrow").codes, fullgraph=True, backend="aot_eager"
        )
        assert torch.equal(compiled(x), first.codes)


def test_another_thread_keeps_its_own() -> None:
    state, x, elsewhere = ActivationState(4), torch.randn(3, 256), torch.randn(3, 256)
    first = state.quantize(x, RULE, ROTATION, "auto")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(state.quantize, elsewhere, RULE, ROTATION, "auto").result()
    assert state.quantize(x, RULE, ROTATION, "auto").codes is first.codes


def test_an_inference_tensor_is_quantized_each_time(count: Count) -> None:
    with torch.inference_mode():
        state, x = ActivationState(4), torch.randn(3, 256)
        state.quantize(x, RULE, ROTATION, "auto")
        x.mul_(2)
        state.quantize(x, RULE, ROTATION, "auto")
    assert count.calls == 2


def test_codes_outlive_neither_their_activations_nor_the_next() -> None:
    state, x, next_one = ActivationState(4), torch.randn(3, 256), torch.randn(3, 256)
    codes = weakref.ref(state.quantize(x, RULE, ROTATION, "auto").codes)
    assert codes() is not None
    state.quantize(next_one, RULE, ROTATION, "auto")
    assert codes() is None
    codes = weakref.ref(state.quantize(x, RULE, ROTATION, "auto").codes)
    del x
    gc.collect()
    assert codes() is None


def test_a_model_quantizes_less_often_than_it_multiplies_and_gives_the_same(
    transformer: Any, call: Callable[..., torch.Tensor]
) -> None:
    quantize(transformer, Recipe.named("dvd-quant", "W4A8"))
    with Count() as shared:
        expected = call(transformer, mode=torch.no_grad)
    with Count() as separate:
        assert torch.equal(call(copy.deepcopy(transformer), mode=torch.inference_mode), expected)
    # In each of two blocks K and V of self-attention and V of cross-attention find what was quantized before them.
    assert (shared.calls, separate.calls) == (14, 20)
