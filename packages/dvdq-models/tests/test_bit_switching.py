"""The hook inside a real diffusers pipeline: one decision a step, measured on the conditional pass."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from dvdq_models import DvdqError, Recipe, quantize, trace
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.switching.hook import hook_of, relative_change
from dvdq_reference.oracle import bit_switching as oracle
from dvdq_reference.spec.recipe import BitSchedule

Generate = Callable[..., torch.Tensor]
STEPS = 6


def _recipe(kind: str, **changes: Any) -> Recipe:
    return dataclasses.replace(Recipe.named("dvd-quant", "W4A6"), schedule=BitSchedule(kind, **changes))  # type: ignore[arg-type]


def _record_bits(transformer: Any) -> list[int]:
    """The widths that one layer ran at, a call each."""
    layer = next(m for m in transformer.modules() if isinstance(m, QuantizedLinear))
    seen: list[int] = []
    layer.register_forward_pre_hook(lambda module, _: seen.append(module.state.bits))
    return seen


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, 1), (4.0, 2)])
@pytest.mark.parametrize("prompts", [1, 2])
def test_one_decision_a_step_for_all_passes(
    pipeline: Any, generate: Generate, guidance: float, passes: int, prompts: int
) -> None:
    quantize(pipeline.transformer, _recipe("abs"))
    seen = _record_bits(pipeline.transformer)
    generate(pipeline, STEPS, guidance, prompts)
    expected = oracle.abs_(STEPS, BitSchedule("abs"))
    assert [d.bits for d in trace(pipeline.transformer)] == expected
    assert seen == [bits for bits in expected for _ in range(passes)]


def test_the_switch_follows_the_measured_distances(pipeline: Any, generate: Generate) -> None:
    outputs: list[torch.Tensor] = []
    recipe = _recipe("delta", delta=0.05)
    quantize(pipeline.transformer, recipe)
    pipeline.transformer.proj_out.register_forward_hook(lambda _m, _i, output: outputs.append(output.clone()))
    generate(pipeline, STEPS, 4.0)
    decisions = trace(pipeline.transformer)
    conditional = outputs[::2]
    distances = [oracle.relative_change(b.numpy(), a.numpy()) for a, b in pairwise(conditional)]
    assert decisions[0].distance is None
    # The L1 norms are float32 sums of n terms, each off by at most n units of roundoff, and there are two.
    tolerance = 2 * conditional[0].numel() * float(np.finfo(np.float32).eps)
    measured = [d.distance for d in decisions[1:]]
    assert measured == [pytest.approx(d, rel=tolerance) for d in distances]
    assert [d.bits for d in decisions] == oracle.delta_guided(
        [m or 0.0 for m in measured], _recipe("delta", delta=0.05).schedule
    )


def test_a_skipped_step_adds_nothing_and_says_so(pipeline: Any, generate: Generate) -> None:
    recipe = _recipe("delta", delta=0.05)
    transformer = quantize(pipeline.transformer, recipe)
    hook, outputs, skipped = hook_of(transformer), [], {2, 4}

    def skip(_module: Any, _inputs: Any) -> None:
        if len(hook.trace) - 1 in skipped:
            hook.mark_skipped("a test")

    transformer.blocks[0].register_forward_pre_hook(skip)
    transformer.proj_out.register_forward_hook(lambda _m, _i, output: outputs.append(output.clone()))
    generate(pipeline, STEPS, 4.0)
    decisions = trace(transformer)
    assert [d.skipped for d in decisions] == [step in skipped for step in range(STEPS)]
    assert [d.step for d in decisions if d.reason == "skipped: a test"] == sorted(skipped)
    computed = [(step, outputs[2 * step]) for step in range(STEPS) if step not in skipped]
    distances = {step: relative_change(b, a) for (_, a), (step, b) in pairwise(computed)}
    # Outputs are compared before they are unpatchified: the same terms in another order.
    tolerance = 2 * outputs[0].numel() * float(np.finfo(np.float32).eps)
    for decision in decisions[1:]:
        assert (decision.distance is None) == decision.skipped
        assert decision.skipped or decision.distance == pytest.approx(distances[decision.step], rel=tolerance)
    assert [d.bits for d in decisions] == oracle.delta_guided([d.distance for d in decisions[1:]], recipe.schedule)


def test_only_a_running_pass_can_be_skipped(transformer: Any) -> None:
    hook = hook_of(quantize(transformer, _recipe("constant")))
    with pytest.raises(DvdqError, match="mark_skipped: expected a call inside a forward pass"):
        hook.mark_skipped("a test")


def test_delta_zero_is_always_high_and_a_large_delta_low(pipeline: Any, generate: Generate) -> None:
    full = copy.deepcopy(pipeline.transformer)
    results = {}
    for name, schedule in {
        "zero": _recipe("delta", delta=0.0),
        "high": _recipe("constant", low=8, high=8),
    }.items():
        pipeline.transformer = quantize(copy.deepcopy(full), schedule)
        results[name] = generate(pipeline, STEPS)
    assert torch.equal(results["zero"], results["high"])
    pipeline.transformer = quantize(copy.deepcopy(full), _recipe("delta", delta=1e9))
    generate(pipeline, STEPS)
    assert [d.bits for d in trace(pipeline.transformer)] == [8, 8, *[4] * (STEPS - 2)]


def test_a_second_video_starts_afresh(pipeline: Any, generate: Generate) -> None:
    quantize(pipeline.transformer, _recipe("delta", delta=0.05))
    first = generate(pipeline, STEPS)
    before = trace(pipeline.transformer)
    assert torch.equal(first, generate(pipeline, STEPS))
    assert trace(pipeline.transformer) == before


def test_two_pipelines_do_not_share_state(pipeline: Any, generate: Generate, call: Callable[..., torch.Tensor]) -> None:
    other = quantize(copy.deepcopy(pipeline.transformer), _recipe("constant", low=4, high=4))
    alone = call(other)
    quantize(pipeline.transformer, _recipe("constant", low=8, high=8))
    generate(pipeline, STEPS)
    other._diffusers_hook.reset_stateful_hooks()
    assert torch.equal(call(other), alone)
    assert {d.bits for d in trace(pipeline.transformer)} == {8}
    assert {d.bits for d in trace(other)} == {4}


def test_relative_change_from_zero() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert relative_change(zero, zero) == 0.0
    assert relative_change(one, zero) == float("inf")


def test_a_model_in_full_precision_has_no_trace(transformer: Any) -> None:
    with pytest.raises(DvdqError, match="a quantized transformer, got WanTransformer3DModel"):
        trace(transformer)
