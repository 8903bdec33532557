"""A deep copy of a quantized transformer is a model of its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from dvdq_models import DvdqError, Recipe, quantize, trace
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.switching.hook import hook_of
from dvdq_models.teacache import disable_teacache, enable_teacache


@pytest.mark.parametrize("family", ["wan", "hunyuan-video"])
def test_a_copy_runs_its_own_layers(request: Any, family: str) -> None:
    transformer = request.getfixturevalue("transformer" if family == "wan" else "hunyuan_transformer")
    call = request.getfixturevalue("call" if family == "wan" else "call_hunyuan")
    quantize(transformer, Recipe.named("dvd-quant", "W4A8"))
    before = call(transformer)
    other = copy.deepcopy(copy.deepcopy(transformer))
    assert torch.equal(call(other), before)
    for layer in other.modules():
        if isinstance(layer, QuantizedLinear):
            layer.scale.data.mul_(2.0)
    assert not torch.equal(call(other), before)
    assert torch.equal(call(transformer), before)


def test_a_copy_has_a_schedule_of_its_own(transformer: Any, call: Any) -> None:
    quantize(transformer, Recipe.named("dvd-quant", "W4A6"))
    call(transformer)
    other = copy.deepcopy(transformer)
    assert len(trace(transformer)) == 1
    assert trace(other) == ()
    state, other_state = hook_of(transformer).state, hook_of(other).state
    assert state is not other_state
    assert {layer.state for layer in other.modules() if isinstance(layer, QuantizedLinear)} == {other_state}
    call(other)
    assert len(trace(transformer)) == len(trace(other)) == 1


def test_a_copy_that_would_share_a_cache_is_refused(transformer: Any, call: Any, pipeline: Any) -> None:
    quantize(transformer, Recipe.named("dvd-quant", "W4A8"))
    before = call(transformer)
    enable_teacache(transformer, 0.1, coefficients="wan2.1-t2v-1.3b", pipeline=pipeline)
    with pytest.raises(DvdqError, match=r"deepcopy: .*a model without hooks of its own.* got dvdq_teacache"):
        copy.deepcopy(transformer)
    disable_teacache(transformer)
    assert torch.equal(call(copy.deepcopy(transformer)), before)
