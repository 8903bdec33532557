"""The shared words."""

import dataclasses
import json

import pytest

from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.quantized import bits_per_weight, stored_tensors
from dvdq_reference.spec.recipe import ActivationRule, BitSchedule, Recipe, Rotation, Smoothing, WeightRule

NAMES = ["minmax", "smoothquant", "quarot", "vidit-q", "dvd-quant"]


@pytest.mark.parametrize("bits", ["W4A8", "W4A6", "W4A4", "W8A8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_json(name, bits):
    recipe = Recipe.named(name, bits)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a6_is_a_switch_between_4_and_8():
    schedule = Recipe.named("dvd-quant", "W4A6").schedule
    assert (schedule.kind, schedule.low, schedule.high) == ("delta", 4, 8)
    assert Recipe.named("dvd-quant", "W4A4").schedule == BitSchedule("constant", low=4, high=4)


def test_a_recipe_without_younger_fields_is_written_and_read_as_it_always_was():
    stored = {
        "name": "dvd-quant",
        "weight": {
            "bits": 4,
            "grid": "bgr",
            "group_size": None,
            "symmetric": False,
            "num_bounds": 6,
            "tolerance": 0.001,
        },
        "activation": {"bits": 8, "block": 128, "clip": "absmax"},
        "schedule": {"kind": "delta", "low": 4, "high": 8, "delta": 0.12, "seed": 0, "measured": "conditional"},
        "rotation": {"kind": "full", "seed": None},
        "smoothing": None,
    }
    printed = Recipe.named("dvd-quant", "W4A6", rotation=Rotation("full"))
    assert Recipe.from_dict(stored) == printed
    assert printed.to_dict() == stored
    ends = dataclasses.replace(printed, schedule=BitSchedule("low", last_high=2))
    assert ends.to_dict()["schedule"] == {**stored["schedule"], "kind": "low", "delta": None, "last_high": 2}
    assert Recipe.from_dict(json.loads(json.dumps(ends.to_dict()))) == ends
    finishing = dataclasses.replace(ends, finish=WeightRule(4, "bgr", 64))
    assert finishing.to_dict() == ends.to_dict() | {"finish": {**stored["weight"], "group_size": 64}}
    assert Recipe.from_dict(json.loads(json.dumps(finishing.to_dict()))) == finishing
    assert finishing.weights == (finishing.weight, finishing.finish)
    assert not finishing.feeds_back
    fed = WeightRule(4, "bgr", rounding="feedback")
    for changed, name in (
        (dataclasses.replace(ends, weight=fed), "weight"),
        (dataclasses.replace(ends, finish=fed), "finish"),
    ):
        assert changed.to_dict() == ends.to_dict() | {name: {**stored["weight"], "rounding": "feedback"}}
        assert Recipe.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
        assert changed.feeds_back


def test_what_a_weight_is_made_of():
    tensors = stored_tensors(12, 256, WeightRule(4, "bgr", 64))
    assert [(t.name, t.shape, t.dtype) for t in tensors] == [
        ("qweight", (12, 128), "uint8"),
        ("scale", (12, 4), "float32"),
        ("zero", (12, 4), "int16"),
    ]
    assert [t.name for t in stored_tensors(12, 256, WeightRule(4, "minmax", symmetric=True))] == ["qweight", "scale"]
    assert bits_per_weight(12, 256, WeightRule(4, "bgr", 64)) == 4 + (32 + 16) / 64
    finish = WeightRule(3, "minmax", 128, symmetric=True)
    second = stored_tensors(12, 256, WeightRule(4, "bgr", 64), Smoothing(), finish)[4:]
    assert [(t.name, t.shape, t.dtype) for t in second] == [
        ("finish_qweight", (12, 128), "uint8"),
        ("finish_scale", (12, 2), "float32"),
    ]
    assert bits_per_weight(12, 256, WeightRule(4, "bgr", 64), finish=finish) == 8 + (32 + 16) / 64 + 32 / 128


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recipe.named("awq"), "recipe: expected one of minmax, .* got 'awq'"),
        (lambda: Recipe.named("minmax", "4/8"), "recipe: bits: expected W"),
        (lambda: Recipe.from_dict({"name": "x", "colour": 1}), "recipe: expected the fields of a recipe"),
        (lambda: WeightRule(9), "recipe: bits: expected .* 2 to 8, got 9"),
        (
            lambda: WeightRule(4, "gptq"),
            "recipe: weight.grid: expected minmax or bgr or bgr-symmetric or clip-search, got 'gptq'",
        ),
        (lambda: WeightRule(4, "clip-search"), "recipe: weight: expected symmetric=True for clip-search"),
        (lambda: WeightRule(4, "bgr-symmetric"), "recipe: weight: expected symmetric=True for bgr-symmetric"),
        (lambda: WeightRule(4, num_bounds=0), "recipe: weight.num_bounds: expected a positive whole number, got 0"),
        (lambda: WeightRule(4, tolerance=1.0), "recipe: weight.tolerance: expected 0 to 1, got 1.0"),
        (lambda: WeightRule(4, "bgr", symmetric=True), "recipe: weight: expected an asymmetric grid for BGR"),
        (lambda: ActivationRule(4, 0), "recipe: activation.block: expected a positive whole number or None, got 0"),
        (lambda: ActivationRule(4, None, "best"), "recipe: activation.clip"),
        (lambda: Rotation("sylvester"), "recipe: rotation.kind: expected full or block or regular"),
        (lambda: Rotation("regular", seed=1), "recipe: rotation.seed: expected none beside a regular rotation, got 1"),
        (lambda: Smoothing("smoothquant", 1.5), "recipe: smoothing.alpha: expected 0 to 1, got 1.5"),
        (lambda: Smoothing("smoothquant", twice=True), "recipe: smoothing.twice: expected vidit-q"),
        (lambda: BitSchedule(measured="both"), "recipe: schedule.measured: expected conditional or guided"),
        (lambda: BitSchedule("delta"), "recipe: schedule.delta"),
        (
            lambda: Recipe.named("minmax", finish=WeightRule(4)),
            "recipe: schedule.last_high: expected last steps, for finish, got 0",
        ),
        (lambda: BitSchedule(last_high=-1), "recipe: schedule.last_high: expected a whole number >= 0, got -1"),
        (lambda: BitSchedule(first_high=True), "recipe: schedule.first_high: expected a whole number >= 0, got True"),
        (lambda: BitSchedule(low=8, high=4), "recipe: schedule: expected low <= high, got 8 > 4"),
        (lambda: stored_tensors(2, 3, WeightRule(4)), "stored_tensors: expected an even number .* got 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(DvdqError, match=message):
        call()
