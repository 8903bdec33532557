"""Recipes that smooth: what calibration records, what layers make of it, and every way to a quantized model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, quantize, save
from dvdq_models.calibration import Calibration, calibrate
from dvdq_models.cli import app
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.streaming import quantize_checkpoint
from dvdq_models.switching.hook import hook_of
from dvdq_reference.oracle import affine, bounds, hadamard, linear, packing, smoothing
from dvdq_reference.oracle.affine import Grid
from dvdq_reference.spec.recipe import Smoothing

LAYERS = ("blocks.0.attn1.to_q", "blocks.1.ffn.net.2")
RECIPES = [
    *(Recipe.named(name, bits) for name in ("smoothquant", "vidit-q") for bits in ("W4A8", "W4A4")),
    # At α = 0.5 both count it alike.
    *(Recipe.named(name, "W4A8", smoothing=Smoothing(name, 0.2)) for name in ("smoothquant", "vidit-q")),
]
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture
def calibration(pipeline: Any, generate: Callable[..., torch.Tensor]) -> Calibration:
    return calibrate(pipeline, [("a", lambda: generate(pipeline, steps=3)), ("b", lambda: generate(pipeline, steps=2))])


def _layers(transformer: Any) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in transformer.named_modules() if isinstance(module, QuantizedLinear)}


def test_the_maxima_are_those_of_all_inputs(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in LAYERS}
    for name, inputs in seen.items():
        pipeline.transformer.get_submodule(name).register_forward_pre_hook(
            lambda _, args, inputs=inputs: inputs.append(args[0].clone())
        )
    before = {name: len(m._forward_pre_hooks) for name, m in pipeline.transformer.named_modules()}
    made = calibrate(pipeline, [("a", lambda: generate(pipeline, steps=3)), ("b", lambda: generate(pipeline, steps=2))])
    assert made.prompts == ("a", "b")
    assert made.passes == 2 * (3 + 2)  # two passes a step
    maxima = made.of("transformer")
    assert len(maxima) == 20
    for name, inputs in seen.items():
        exact = torch.cat([x.flatten(0, -2) for x in inputs]).abs().amax(dim=0)
        assert torch.equal(maxima[name], exact)
    assert before == {name: len(m._forward_pre_hooks) for name, m in pipeline.transformer.named_modules()}


def test_a_file_gives_back_what_was_saved(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "new" / "c.safetensors")
    again = Calibration.load(tmp_path / "new" / "c.safetensors")
    assert (again.prompts, again.passes, again.seconds) == (
        calibration.prompts,
        calibration.passes,
        calibration.seconds,
    )
    assert again.maxima.keys() == calibration.maxima.keys()
    assert all(torch.equal(again.maxima[name], tensor) for name, tensor in calibration.maxima.items())
    assert again.digest() == calibration.digest()
    changed = dict(calibration.maxima)
    name = next(iter(changed))
    changed[name] = changed[name] * 2
    assert Calibration(changed, (), 0, 0.0).digest() != calibration.digest()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.name}-A{r.activation.bits}-{r.smoothing.alpha}")
@pytest.mark.parametrize("name", LAYERS)
def test_a_smoothed_layer_computes_what_the_oracle_says(
    transformer: Any, calibration: Calibration, recipe: Recipe, name: str
) -> None:
    weight = transformer.get_submodule(name).weight.detach().double().numpy()
    bias = transformer.get_submodule(name).bias.detach().clone()
    maxima = calibration.of("transformer")
    layer = _layers(quantize(transformer, recipe, channel_maxima=maxima))[name]
    layer.state.bits = recipe.activation.bits
    assert recipe.smoothing is not None
    assert layer.smoothing is not None
    exact = smoothing.smoothing_factor(maxima[name].numpy(), weight, recipe.smoothing)
    factor = layer.smoothing.numpy()
    assert np.abs(factor / exact - 1).max() <= EPS  # rounded once
    # The weight that is quantized is W s in the rotated basis. No element of a min-max grid is clipped.
    smoothed = weight * exact
    if recipe.rotation is not None:
        smoothed = smoothed @ hadamard.rotation_matrix(weight.shape[1], recipe.rotation)
    scale = layer.scale.numpy().astype(np.float64)
    zero = np.full(scale.shape, 8) if layer.zero is None else layer.zero.numpy().astype(np.int64)
    codes = packing.unpack(layer.qweight.numpy(), 4, layer.in_features)
    rounding = 2 * EPS * np.abs(weight * exact).sum(axis=1, keepdims=True)
    assert (np.abs((codes - zero) * scale - smoothed) <= scale / 2 * (1 + 8 * EPS) + rounding).all()
    # The linear on those codes is that of X / s.
    x = torch.randn(9, layer.in_features, generator=torch.Generator().manual_seed(3))
    divided = (x / layer.smoothing).numpy()
    arguments = divided, codes, Grid(scale, zero, 4), recipe.activation
    keywords = {"rotation": recipe.rotation, "bias": bias.numpy()}
    with torch.inference_mode():
        got = layer(x).numpy()
    assert (
        np.abs(got - linear.quantized_linear(*arguments, **keywords)) <= bounds.linear_float32(*arguments, **keywords)
    ).all()


def test_a_second_quantization_leaves_other_codes(transformer: Any, calibration: Calibration) -> None:
    maxima = calibration.of("transformer")
    once = Recipe.named("vidit-q", "W4A8")
    twice = Recipe.named("vidit-q", "W4A8", smoothing=Smoothing("vidit-q", twice=True))
    name = LAYERS[0]
    weight = transformer.get_submodule(name).weight.detach().double().numpy()
    layers = [_layers(quantize(copy.deepcopy(transformer), r, channel_maxima=maxima))[name] for r in (once, twice)]
    assert torch.equal(layers[0].smoothing, layers[1].smoothing)
    assert once.rotation is not None
    for layer, is_twice in zip(layers, (False, True), strict=True):
        smoothed = weight * layer.smoothing.numpy()
        codes, grid = smoothing.viditq_weight(weight, layer.smoothing.numpy(), once.rotation, 4, twice=is_twice)
        if is_twice:
            first = affine.minmax_grid(smoothed, 4, symmetric=True)
            smoothed = affine.dequantize(affine.quantize(smoothed, first), first)
        steps = smoothed @ hadamard.rotation_matrix(weight.shape[1], once.rotation) / grid.scale
        # Sums of a few multiples of one scale lie on ties often, and float32 may break them the other way.
        rounding = 2 * EPS * (np.abs(smoothed).sum(axis=1, keepdims=True) / grid.scale + 8)
        on_tie = np.abs(np.abs(steps - np.floor(steps)) - 0.5) <= rounding
        got = packing.unpack(layer.qweight.numpy(), 4, layer.in_features)
        assert ((codes == got) | on_tie).all()
        assert np.abs(codes.astype(int) - got).max() <= 1
        assert on_tie.mean() < 0.05
    assert not torch.equal(layers[0].qweight, layers[1].qweight)


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[3]], ids=lambda r: r.name)
def test_every_way_leads_to_the_same_model(
    transformer: Any,
    calibration: Calibration,
    recipe: Recipe,
    pipeline_folder: Path,
    tmp_path: Path,
    call: Callable[..., torch.Tensor],
) -> None:
    maxima = calibration.of("transformer")
    full = pipeline_folder / "transformer"
    model_class = type(transformer)
    in_memory = quantize(model_class.from_pretrained(str(full)), recipe, channel_maxima=maxima)
    save(in_memory, tmp_path / "saved")
    quantize_checkpoint(full, tmp_path / "streamed", recipe, calibration=calibration)
    config = DVDQuantConfig(recipe, channel_maxima=maxima)
    on_load = model_class.from_pretrained(str(full), quantization_config=config)
    others = [load(tmp_path / "saved"), load(tmp_path / "streamed"), on_load]
    wanted = in_memory.state_dict()
    assert sum(name.endswith(".smoothing") for name in wanted) == 20
    for other in others:
        state = other.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
        assert torch.equal(call(other), call(in_memory))


def test_a_cast_leaves_the_factor_as_it_is(transformer: Any, calibration: Calibration) -> None:
    layer = _layers(quantize(transformer, RECIPES[0], channel_maxima=calibration.of("transformer")))[LAYERS[0]]
    assert layer.smoothing is not None
    before = layer.smoothing.clone()
    transformer.blocks.to(torch.bfloat16)
    assert layer.smoothing.dtype == torch.float32
    assert torch.equal(layer.smoothing, before)
    assert layer(torch.randn(3, layer.in_features).to(torch.bfloat16)).dtype == torch.bfloat16


def test_a_smoothed_layer_compiles_into_one_graph(transformer: Any, calibration: Calibration) -> None:
    layer = _layers(quantize(transformer, RECIPES[2], channel_maxima=calibration.of("transformer")))[LAYERS[0]]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, layer.in_features)
    with torch.inference_mode():
        assert torch.equal(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {}, r"blocks\.0\.attn1\.to_q: expected calibrated maxima \[128\], got none, as of another model"),
        (
            lambda m: m | {LAYERS[0]: torch.ones(3)},
            r"blocks\.0\.attn1\.to_q: expected calibrated maxima \[128\], got \[3\]",
        ),
        (lambda m: m | {LAYERS[1]: -m[LAYERS[1]]}, r"blocks\.1\.ffn\.net\.2: expected maxima that are finite and >= 0"),
        (
            lambda m: m | {LAYERS[1]: m[LAYERS[1]] * torch.inf},
            r"blocks\.1\.ffn\.net\.2: expected maxima that are finite",
        ),
    ],
)
def test_statistics_of_another_model_change_nothing(
    transformer: Any, calibration: Calibration, change: Any, message: str
) -> None:
    with pytest.raises(DvdqError, match=message):
        quantize(transformer, RECIPES[0], channel_maxima=change(calibration.of("transformer")))
    assert not _layers(transformer)
    with pytest.raises(DvdqError, match="expected a quantized transformer"):  # no switch was attached either
        hook_of(transformer)


def test_a_recipe_without_smoothing_refuses_statistics(transformer: Any, calibration: Calibration) -> None:
    with pytest.raises(DvdqError, match="minmax: expected no calibration: it uses none"):
        quantize(transformer, Recipe.named("minmax"), channel_maxima=calibration.of("transformer"))
    assert not _layers(transformer)


def test_what_cannot_be_calibrated_is_named(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(DvdqError, match="expected at least one prompt"):
        calibrate(pipeline, [])
    with torch.no_grad():
        pipeline.transformer.blocks[1].attn1.to_out[0].weight[0, 0] = float("nan")
    with pytest.raises(DvdqError, match="expected finite activations"):
        calibrate(pipeline, [("a", lambda: generate(pipeline, steps=1))])
    with torch.no_grad():
        pipeline.transformer.blocks[1].attn1.to_out[0].weight[0, 0] = 0.0
    quantize(pipeline.transformer, Recipe.named("minmax"))
    with pytest.raises(DvdqError, match="transformer: expected a model in full precision, got a quantized one"):
        calibrate(pipeline, [("a", lambda: None)])


def test_other_files_are_refused(calibration: Calibration, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    with pytest.raises(DvdqError, match="text: expected a file that dvdq calibrate wrote"):
        Calibration.load(tmp_path / "text")
    save_file(
        {"transformer.x": torch.ones(2)}, tmp_path / "old", metadata={"kind": "dvd-quant calibration", "format": "1"}
    )
    with pytest.raises(DvdqError, match="old: expected prompts, passes and seconds beside the tensors"):
        Calibration.load(tmp_path / "old")
    with pytest.raises(DvdqError, match="expected a file to write, got a folder"):
        calibration.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "text"]
    with pytest.raises(DvdqError, match="transformer_2: expected its maxima, got those of"):
        calibration.of("transformer_2")


def test_from_prompts_to_a_checkpoint_by_commands(pipeline_folder: Path, tmp_path: Path) -> None:
    run, out = CliRunner().invoke, tmp_path / "c.safetensors"
    (tmp_path / "prompts.txt").write_text("a red circle\n\na blue square\n")
    small = ["--height", "16", "--width", "16", "--frames", "5", "--steps", "2", "--json"]
    asked = ["--prompt", "a green star", "--prompts", str(tmp_path / "prompts.txt")]
    result = run(app, ["calibrate", str(pipeline_folder), str(out), *asked, *small])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["prompts"] == ["a green star", "a red circle", "a blue square"]
    assert json.loads(result.stdout)["layers"] == 20
    quantized = ["quantize", str(pipeline_folder), "--recipe", "smoothquant", "--bits", "W4A8", "--json"]
    result = run(app, [*quantized, str(tmp_path / "q"), "--calibration", str(out)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "q" / "transformer" / "config.json").is_file()
    nothing = run(app, ["calibrate", str(pipeline_folder), str(out), *small])
    assert "expected --prompt or --prompts, got none" in str(nothing.exception)
    result = run(app, [*quantized, str(tmp_path / "without")])
    assert isinstance(result.exception, DvdqError)
    assert "smoothquant: expected calibration of its activations (dvdq calibrate)" in str(result.exception)
    assert not (tmp_path / "without").exists()
