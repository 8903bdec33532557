"""Transformers to measure, and what a GPU would be asked: events, memory, and what fits together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from dvdq_eval.latency.taps import CudaClock, HostClock, clock_of
from dvdq_eval.machine import peak_bytes
from dvdq_eval.passes.running import (
    WASTE,
    Variant,
    build,
    build_empty,
    fit_together,
    pass_bytes,
    passes_of,
    weight_bytes,
)
from dvdq_eval.passes.subject import Subject, open_subject
from dvdq_models import Recipe, quantize
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.moving_shapes import WAN
from dvdq_reference.spec.quantized import stored_tensors
from dvdq_reference.spec.recipe import Smoothing, WeightRule

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
RECIPES = (
    *(Recipe.named(name) for name in ("minmax", "smoothquant", "quarot", "vidit-q", "dvd-quant", "dvd-quant-plus")),
    *(Recipe.named("dvd-quant", bits) for bits in ("W2A8", "W6A8", "W8A4")),
)


@pytest.fixture(params=["wan", "hunyuan-video"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """The bundled transformers, with random weights."""
    return open_subject("latency", request.param, None, random=True)


@pytest.mark.parametrize("recipe", [None, *RECIPES], ids=lambda r: "full" if r is None else f"{r.name}-{r.weight.bits}")
def test_random_weights_give_finite_outputs_in_every_recipe(subject: Subject, recipe: Recipe | None) -> None:
    turn = next(passes_of(subject, Variant("", recipe, (8,)), CPU))
    turn.prepare()
    output = turn()
    assert bool(output.isfinite().all())
    assert float(output.std()) > 0
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in turn.transformer.parameters())


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_random_codes_are_codes_of_the_recipe(subject: Subject, bits: int) -> None:
    recipe = Recipe.named("minmax", f"W{bits}A8")
    layers = [m for m in build(subject, recipe, CPU).modules() if isinstance(m, QuantizedLinear)]
    for layer in layers:
        for tensor in stored_tensors(layer.out_features, layer.in_features, recipe.weight):
            drawn = getattr(layer, tensor.name)
            assert (tuple(drawn.shape), drawn.dtype) == (tensor.shape, getattr(torch, tensor.dtype))
    nibbles = [layer.qweight.flatten() for layer in layers]
    codes = torch.cat([part for q in nibbles for part in ((q & 15, q >> 4) if bits <= 4 else (q,))])
    assert codes.unique().tolist() == list(range(2**bits))


def test_dtypes_are_those_that_a_checkpoint_gets() -> None:
    loaded = WanTransformer3DModel.from_pretrained(str(WAN.folder / "transformer"), torch_dtype=torch.bfloat16)
    empty = build_empty(open_subject("latency", "wan", None), None, torch.bfloat16)
    found = {name: parameter.dtype for name, parameter in empty.named_parameters()}
    assert found == {name: parameter.dtype for name, parameter in loaded.named_parameters()}
    assert len(set(found.values())) == 2


def test_a_checkpoint_keeps_its_weights_and_is_quantized_as_models_are() -> None:
    subject, recipe = open_subject("latency", "wan", None), Recipe.named("dvd-quant")
    full = WanTransformer3DModel.from_pretrained(str(WAN.folder / "transformer"))
    for transformer, expected in ((build(subject, None, CPU), full), (build(subject, recipe, CPU), None)):
        expected = expected if expected is not None else quantize(full, recipe)
        state = transformer.state_dict()
        assert state.keys() == expected.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.named("smoothquant"),
        Recipe.named("vidit-q"),
        Recipe.named("dvd-quant", smoothing=Smoothing("analytic"), weight=WeightRule(4, "bgr", rounding="feedback")),
    ],
    ids=lambda recipe: str(recipe.name),
)
def test_a_recipe_that_smooths_runs_without_calibration(recipe: Recipe) -> None:
    variant = Variant("", recipe, (8,))
    turn = next(passes_of(open_subject("latency", "wan", None), variant, CPU))
    turn.prepare()
    assert bool(turn().isfinite().all())
    smoothed = [m for m in turn.transformer.modules() if isinstance(m, QuantizedLinear) and m.smoothing is not None]
    assert len(smoothed) == 60


class Event:
    """An event that knows when it was recorded, in milliseconds, and refuses to be read before it is done."""

    now, done = 0.0, -1.0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 250.0
        self.time = Event.now

    def elapsed_time(self, end: Event) -> float:
        assert end.time <= Event.done
        return end.time - self.time


def test_a_gpu_is_timed_by_events_that_are_read_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: setattr(Event, "done", Event.now))
    clock = clock_of(CUDA)
    assert isinstance(clock, CudaClock)
    start, _, end = clock.mark(), clock.mark(), clock.mark()
    clock.settle()
    assert clock.seconds(start, end) == 0.5
    assert isinstance(clock_of(CPU), HostClock)


def test_a_peak_is_what_a_call_takes_beside_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, waited = 700, 5000, []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: most)

    def reset(device: torch.device) -> None:
        nonlocal most
        most = now

    def call() -> None:
        nonlocal most
        assert len(waited) == 1
        most = max(most, now + 400)

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    assert peak_bytes(CUDA, call) == 400
    assert waited == [CUDA, CUDA]
    assert peak_bytes(CPU, lambda: None) is None


def test_models_fit_together_if_all_weights_and_one_pass_do(monkeypatch: pytest.MonkeyPatch, subject: Subject) -> None:
    recipes = [None, Recipe.named("dvd-quant")]
    weights = [weight_bytes(build_empty(subject, recipe, torch.bfloat16)) for recipe in recipes]
    passes = [pass_bytes("latency", subject, recipe, torch.bfloat16) for recipe in recipes]
    needed = WASTE * (sum(weights) + max(passes))
    for free, expected in ((int(needed) - 1, False), (int(needed) + 1, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert fit_together("latency", subject, recipes, CUDA) is expected
    monkeypatch.setattr(torch.cuda, "mem_get_info", pytest.fail)
    assert fit_together("latency", subject, recipes, CPU)


def test_the_weights_that_a_device_holds_are_what_was_counted(subject: Subject) -> None:
    def size(transformer: Any) -> int:
        return sum(parameter.untyped_storage().nbytes() for parameter in transformer.parameters())

    for recipe in (None, Recipe.named("dvd-quant-plus")):
        assert size(build(subject, recipe, CPU)) == weight_bytes(build_empty(subject, recipe, torch.float32))
