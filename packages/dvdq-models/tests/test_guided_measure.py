"""A switch that measures what guidance makes of both passes (``BitSchedule(measured="guided")``)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from dvdq_models import DvdqError, Recipe, trace
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.switching.hook import attach, follow, hook_of
from dvdq_reference.oracle import bit_switching as oracle
from dvdq_reference.spec.recipe import BitSchedule

DELTA = 0.5
STEPS = 6


def _switched(pipeline: Any, measured: str) -> list[torch.Tensor]:
    """Attach a switch that changes no layer; every output of the transformer from then on."""
    schedule = BitSchedule("delta", delta=DELTA, measured=measured)
    attach(pipeline.transformer, Recipe.named("dvd-quant", "W4A6", schedule=schedule), ActivationState(8))
    outputs: list[torch.Tensor] = []
    pipeline.transformer.register_forward_hook(lambda _m, _i, output: outputs.append(output[0].detach().double()))
    return outputs


def _expected(outputs: list[np.ndarray]) -> list[float]:
    return [oracle.relative_change(b, a) for a, b in pairwise(outputs)]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("measured", ["conditional", "guided"])
def test_the_distances_are_those_of_what_is_measured(
    pipeline: Any, generate: Callable[..., torch.Tensor], measured: str, guidance: float
) -> None:
    outputs = _switched(pipeline, measured)
    follow(pipeline)
    generate(pipeline, steps=STEPS, guidance=guidance)
    passes = 2 if guidance > 1.0 else 1
    assert len(outputs) == passes * STEPS
    conditional = [o.numpy() for o in outputs[::passes]]
    wanted = conditional
    if measured == "guided" and passes == 2:
        other = [o.numpy() for o in outputs[1::2]]
        wanted = [u + guidance * (c - u) for c, u in zip(conditional, other, strict=True)]
    decided = trace(pipeline.transformer)
    assert [d.step for d in decided] == list(range(STEPS))
    got = [d.distance for d in decided]
    assert got[0] is None
    assert got[1:] == pytest.approx(_expected(wanted), rel=1e-5)  # float32 sums of a few thousand elements
    assert [d.bits for d in decided] == oracle.delta_guided(got[1:], BitSchedule("delta", delta=DELTA))


def test_both_ways_measure_something_else(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    distances = {}
    for measured in ("conditional", "guided"):
        _switched(pipeline, measured)
        follow(pipeline)
        generate(pipeline, steps=STEPS)
        distances[measured] = [d.distance for d in trace(pipeline.transformer)[1:]]
    assert distances["conditional"] != distances["guided"]


def test_a_skipped_step_adds_nothing(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    _switched(pipeline, "guided")
    follow(pipeline)
    hook = hook_of(pipeline.transformer)
    numbers = iter(range(2 * STEPS))

    def skip_the_third(*_: Any) -> None:
        if next(numbers) in (4, 5):
            hook.mark_skipped("for this test")

    pipeline.transformer.blocks[0].register_forward_pre_hook(skip_the_third)
    generate(pipeline, steps=STEPS)
    decided = trace(pipeline.transformer)
    assert [d.skipped for d in decided] == [False, False, True, False, False, False]
    assert [d.distance is None for d in decided] == [True, False, True, False, False, False]


def test_a_pipeline_that_tells_no_guidance_is_named(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    _switched(pipeline, "guided")
    with pytest.raises(DvdqError, match="guided: expected a pipeline that tells its guidance scale"):
        generate(pipeline, steps=2)
