"""Rounding by what a model's own videos say: what is recorded, the oracle's codes in a layer, every way to a model."""

from __future__ import annotations

import copy
import dataclasses
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

from dvdq_kernels import dequantize, rotate
from dvdq_kernels.feedback import error_feedback
from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, quantize, save
from dvdq_models.calibration import Calibration, _SecondMoments, calibrate
from dvdq_models.cli import app
from dvdq_models.families import family_of
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.streaming import quantize_checkpoint
from dvdq_reference.oracle import packing
from dvdq_reference.oracle.affine import Grid
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.feedback import moments_in_basis, round_with_feedback
from dvdq_reference.spec.recipe import BitSchedule, Rotation, Smoothing, WeightRule

RULE = WeightRule(4, "bgr", 64, rounding="feedback")
RECIPE = Recipe.named("dvd-quant", "W4A8", weight=RULE)
ALL = dataclasses.replace(
    RECIPE,
    rotation=Rotation("full", seed=0),
    smoothing=Smoothing("analytic"),
    schedule=BitSchedule(last_high=1),
    finish=RULE,
)
LAYERS = ("blocks.0.attn1.to_q", "blocks.1.ffn.net.2")


@pytest.fixture
def calibration(pipeline: Any, generate: Callable[..., torch.Tensor]) -> Calibration:
    return calibrate(pipeline, [("a", lambda: generate(pipeline, steps=2))], moments=True)


def _layers(transformer: Any) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in transformer.named_modules() if isinstance(module, QuantizedLinear)}


def test_moments_are_those_of_all_inputs_and_shared_where_these_are(
    pipeline: Any, generate: Callable[..., torch.Tensor]
) -> None:
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in LAYERS}
    for name, inputs in seen.items():
        pipeline.transformer.get_submodule(name).register_forward_pre_hook(
            lambda _, args, inputs=inputs: inputs.append(args[0].clone())
        )
    before = {name: len(m._forward_pre_hooks) for name, m in pipeline.transformer.named_modules()}
    videos = [("a", lambda: generate(pipeline, steps=2)), ("b", lambda: generate(pipeline, steps=1))]
    made = calibrate(pipeline, videos, moments=True)
    assert before == {name: len(m._forward_pre_hooks) for name, m in pipeline.transformer.named_modules()}
    moments = made.moments_of("transformer")
    assert moments.keys() == made.of("transformer").keys()
    for name, inputs in seen.items():
        x = torch.cat([x.flatten(0, -2) for x in inputs]).double().numpy()
        # Products, their sums in any order, sums of passes and a quotient, in float32.
        bound = gamma(len(x) + len(inputs) + 2) * (np.abs(x).T @ np.abs(x)) / len(x)
        assert (np.abs(moments[name].numpy() - x.T @ x / len(x)) <= bound).all()
    for block in ("blocks.0", "blocks.1"):
        assert moments[f"{block}.attn1.to_q"] is moments[f"{block}.attn1.to_k"] is moments[f"{block}.attn1.to_v"]
        assert moments[f"{block}.attn1.to_q"] is not moments[f"{block}.attn2.to_q"]
    # All blocks read the text as it is.
    assert moments["blocks.0.attn2.to_k"] is moments["blocks.1.attn2.to_v"]
    assert len({id(matrix) for matrix in moments.values()}) == 2 * 6 + 1
    assert not calibrate(pipeline, videos[1:]).moments


def test_what_is_written_in_place_is_another_input() -> None:
    """Two linears on one tensor that changes between them: one object, two matrices."""

    class Model(nn.Module):
        def __init__(self, changes: list[bool]) -> None:
            super().__init__()
            self.first, self.second, self.changes = nn.Linear(4, 4), nn.Linear(4, 4), changes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            if self.changes.pop(0):
                x.mul_(2)
            return torch.as_tensor(y + self.second(x))

    def record(changes: list[bool]) -> dict[str, torch.Tensor]:
        sums, model = _SecondMoments(), Model(changes)
        for name, layer in model.named_children():
            layer.register_forward_pre_hook(lambda m, args, name=name: sums.add(name, m, args))
        with torch.no_grad():
            while changes:
                model(torch.ones(3, 4))
        matrices = dict(sums.finish_round())
        assert not sums.waiting
        return sums.by_layer(matrices)

    same, other = record([False, False]), record([True, False])
    assert same["first"] is same["second"]
    assert torch.equal(other["first"], torch.ones(4, 4))
    assert torch.equal(other["second"], torch.full((4, 4), 2.5))  # the mean of 4 and 1
    with pytest.raises(DvdqError, match="calibrate: second: expected the tensor that first reads, as in the passes"):
        record([False, True])


def test_in_rounds_they_are_the_same(
    pipeline: Any, calibration: Calibration, generate: Callable[..., torch.Tensor]
) -> None:
    """In the order of the model, two matrices of 128 channels at a time, or one of 384 for which there is no room."""
    videos: list[torch.Tensor] = []
    asked = [("a", lambda: videos.append(generate(pipeline, steps=2)))]
    again = calibrate(pipeline, asked, moments=True, at_once=2 * 4 * 128**2)
    assert len(videos) == 8
    assert again.moments.keys() == calibration.moments.keys()
    assert all(torch.equal(again.moments[name], matrix) for name, matrix in calibration.moments.items())
    assert len({id(matrix) for matrix in again.moments.values()}) == 13


def test_a_file_holds_each_matrix_once(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        assert file.metadata()["format"] == "2"
        assert sum(name.startswith("moments/") for name in file.keys()) == 13  # noqa: SIM118 (it is no dict)
    again = Calibration.load(tmp_path / "c.safetensors")
    assert again.digest() == calibration.digest()
    assert again.moments.keys() == calibration.moments.keys()
    assert all(torch.equal(again.moments[name], matrix) for name, matrix in calibration.moments.items())
    assert again.maxima.keys() == calibration.maxima.keys()
    plain = dataclasses.replace(calibration, moments={})
    assert plain.digest() != calibration.digest()
    plain.save(tmp_path / "plain.safetensors")
    with safe_open(tmp_path / "plain.safetensors", "pt") as file:
        assert file.metadata()["format"] == "1"


@pytest.mark.parametrize("recipe", [RECIPE, dataclasses.replace(ALL, finish=None)], ids=["plain", "smoothed"])
def test_a_layers_codes_are_the_oracles(transformer: Any, calibration: Calibration, recipe: Recipe) -> None:
    weights = {name: transformer.get_submodule(name).weight.detach().clone() for name in LAYERS}
    moments = calibration.moments_of("transformer")
    layers = _layers(quantize(transformer, recipe, moments=moments))
    for name, weight in weights.items():
        layer = layers[name]
        factor = layer.smoothing
        assert (factor is None) == (recipe.smoothing is None)
        smoothed = weight if factor is None else weight * factor
        rotated = rotate(smoothed, recipe.rotation)  # type: ignore[arg-type]  # it has one
        assert layer.zero is not None
        grid = Grid(layer.scale.double().numpy(), layer.zero.long().numpy(), 4)
        basis = {"factor": None if factor is None else factor.detach().numpy(), "rotation": recipe.rotation}
        there = moments_in_basis(moments[name].numpy(), **basis)
        expected = round_with_feedback(rotated.numpy(), grid, there)
        # Both are in float64: a code differs only within some 1e-10 of a tie.
        assert (packing.unpack(layer.qweight.numpy(), 4, layer.in_features) == expected).all()


def test_only_codes_change_and_the_outputs_err_less(transformer: Any, calibration: Calibration) -> None:
    """``Σ δ H δᵀ`` of every layer, over what calibration saw."""
    nearest = dataclasses.replace(RECIPE, weight=dataclasses.replace(RULE, rounding="nearest"))
    moments = calibration.moments_of("transformer")
    plain = quantize(copy.deepcopy(transformer), nearest)
    r = RECIPE.rotation
    assert r is not None
    weights = {name: rotate(transformer.get_submodule(name).weight.detach(), r) for name in LAYERS}
    fed = quantize(transformer, RECIPE, moments=moments)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(fed.state_dict()[name], tensor) != name.endswith("qweight")
    for name, weight in weights.items():
        there = moments_in_basis(moments[name].numpy(), rotation=RECIPE.rotation)
        left = [(weight - dequantize(model.get_submodule(name).quantized)).double().numpy() for model in (fed, plain)]
        first, second = (float(np.sum(delta @ there * delta)) for delta in left)
        assert first < second, name


@pytest.mark.parametrize("recipe", [RECIPE, ALL], ids=["plain", "all"])
def test_every_way_leads_to_the_same_model(
    transformer: Any, calibration: Calibration, recipe: Recipe, pipeline_folder: Path, tmp_path: Path
) -> None:
    moments = calibration.moments_of("transformer")
    full, model_class = pipeline_folder / "transformer", type(transformer)
    calibration.save(tmp_path / "c.safetensors")
    in_memory = quantize(model_class.from_pretrained(str(full)), recipe, moments=moments)
    save(in_memory, tmp_path / "saved")
    quantize_checkpoint(full, tmp_path / "streamed", recipe, calibration=Calibration.load(tmp_path / "c.safetensors"))
    config = DVDQuantConfig(recipe, moments=moments)
    on_load = model_class.from_pretrained(str(full), quantization_config=config)
    wanted = in_memory.state_dict()
    for other in (load(tmp_path / "saved"), load(tmp_path / "streamed"), on_load):
        state = other.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
        assert other.config["quantization_config"].recipe == recipe


@pytest.mark.parametrize(("recipe", "count"), [(RECIPE, 14), (ALL, 20)], ids=["plain", "smoothed"])
def test_linears_that_read_the_same_share_its_factor(
    transformer: Any,
    calibration: Calibration,
    recipe: Recipe,
    count: int,
    pipeline_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of ten linears in a block, three in self-attention and two on the text; smoothing makes each its own."""
    made: list[weakref.ref[torch.Tensor]] = []

    def counted(*given: Any) -> torch.Tensor:
        assert not any(ref() is not None for ref in made)  # one at most
        factor = error_feedback(*given)
        made.append(weakref.ref(factor))
        return factor

    monkeypatch.setattr("dvdq_models.layers.encoding.error_feedback", counted)
    full, moments = pipeline_folder / "transformer", calibration.moments_of("transformer")
    config = DVDQuantConfig(recipe, moments=moments)
    for way in (
        lambda: quantize(transformer, recipe, moments=moments),
        lambda: quantize_checkpoint(full, tmp_path / "streamed", recipe, calibration=calibration),
        lambda: type(transformer).from_pretrained(str(full), quantization_config=config),
    ):
        made.clear()
        way()
        assert len(made) == count
        assert not any(ref() is not None for ref in made)


def test_modulation_is_rounded_by_what_it_reads(
    hunyuan_transformer: Any, call_hunyuan: Callable[..., torch.Tensor]
) -> None:
    model = hunyuan_transformer
    pipeline = SimpleNamespace(transformer=model)
    make = [("a", lambda: call_hunyuan(model, mode=torch.no_grad))]
    calibration = calibrate(pipeline, make, moments=True)
    treatments = family_of(model).treatments(model)
    assert calibration.moments_of("transformer").keys() == {n for n, how in treatments.items() if how != "keep"}
    assert calibration.of("transformer").keys() == {n for n, how in treatments.items() if how == "quantize"}
    exact = call_hunyuan(model)
    nearest = dataclasses.replace(RECIPE, weight=dataclasses.replace(RULE, rounding="nearest"))
    plain = quantize(copy.deepcopy(model), nearest)
    fed = quantize(model, RECIPE, moments=calibration.moments_of("transformer"))
    assert (call_hunyuan(fed) - exact).norm() < (call_hunyuan(plain) - exact).norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: None, r"dvd-quant: expected second moments .* \(dvdq calibrate --moments\), got none"),
        (lambda m: {}, r"attn1\.to_q: expected second moments \[128, 128\], got none, as of another model"),
        (lambda m: m | {LAYERS[0]: torch.ones(128)}, r"to_q: expected second moments \[128, 128\], got \[128\]"),
        (lambda m: m | {LAYERS[0]: m[LAYERS[0]] / 0}, r"blocks\.0\.attn1\.to_q: expected second moments that are fin"),
        (lambda m: m | {LAYERS[0]: -m[LAYERS[0]]}, r"blocks\.0\.attn1\.to_q: expected second moments that are fin"),
    ],
)
def test_other_moments_change_nothing(transformer: Any, calibration: Calibration, change: Any, message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        quantize(transformer, RECIPE, moments=change(calibration.moments_of("transformer")))
    assert not _layers(transformer)


def test_rounding_to_nearest_refuses_them(transformer: Any, calibration: Calibration, tmp_path: Path) -> None:
    moments = calibration.moments_of("transformer")
    with pytest.raises(DvdqError, match="dvd-quant: expected no second moments: it rounds to nearest, got some"):
        quantize(transformer, Recipe.named("dvd-quant"), moments=moments)
    transformer.save_pretrained(tmp_path / "full")
    with pytest.raises(DvdqError, match="dvd-quant: expected no calibration: it uses none"):
        quantize_checkpoint(tmp_path / "full", tmp_path / "q", Recipe.named("dvd-quant"), calibration=calibration)
    plain = dataclasses.replace(calibration, moments={})
    with pytest.raises(DvdqError, match="calibration: transformer: expected its second moments, got those of"):
        quantize_checkpoint(tmp_path / "full", tmp_path / "q", RECIPE, calibration=plain)


def test_from_prompts_to_a_checkpoint_by_commands(pipeline_folder: Path, tmp_path: Path) -> None:
    run, out = CliRunner().invoke, tmp_path / "c.safetensors"
    small = ["--height", "16", "--width", "16", "--frames", "5", "--steps", "1", "--json"]
    result = run(app, ["calibrate", str(pipeline_folder), str(out), "--moments", "--prompt", "a", *small])
    assert result.exit_code == 0, result.output
    asked = ["quantize", str(pipeline_folder), "--feedback", "--bits", "W4A8", "--json"]
    result = run(app, [*asked, str(tmp_path / "without")])
    assert "expected second moments of its activations (dvdq calibrate --moments), got none" in str(result.exception)
    result = run(app, [*asked, str(tmp_path / "q"), "--calibration", str(out)])
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "q" / "transformer" / "config.json").read_text())
    assert config["quantization_config"]["recipe"]["weight"]["rounding"] == "feedback"
    assert config["quantization_config"]["format"] == 1
