"""What a checkpoint weighs and what a pass needs: the parts add up, and a count is what an allocator gives out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import typer
from typer.testing import CliRunner

from dvdq_eval.cli.memory import memory
from dvdq_eval.memory import run
from dvdq_eval.memory.results import Memory, memory_markdown
from dvdq_eval.memory.run import measure_memory, measured_bytes, weight_parts
from dvdq_eval.methods import parse_methods
from dvdq_eval.passes.running import build
from dvdq_eval.passes.subject import Subject, open_subject
from dvdq_models import DvdqError, Recipe
from dvdq_models.families import family_of
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.inspecting.memory import pass_bytes
from dvdq_models.layers.linear import STORED, QuantizedLinear
from dvdq_models.moving_shapes import WAN

CPU = torch.device("cpu")
METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A4")


@pytest.fixture(params=["wan", "hunyuan-video"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """The bundled pipelines."""
    return open_subject("memory", request.param, None)


def counted(subject: Subject, *methods: str, **options: Any) -> Memory:
    return measure_memory(subject, parse_methods("memory", methods or METHODS), **options)


def test_weights_are_the_bytes_of_what_layers_store(subject: Subject) -> None:
    recipe = Recipe.named("dvd-quant")
    full, quantized = weight_parts(subject, None), weight_parts(subject, recipe)
    transformer = build(subject, recipe, CPU)
    layers = [module for module in transformer.modules() if isinstance(module, QuantizedLinear)]

    def stored(weight_only: bool) -> int:
        chosen = [layer for layer in layers if (layer.activation is None) == weight_only]
        return sum(t.nbytes for layer in chosen for name in STORED if (t := getattr(layer, name)) is not None)

    assert (quantized.quantized, quantized.weight_only) == (stored(False), stored(True))
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert full.quantized + full.weight_only == 2 * weights
    assert full.kept == quantized.kept
    parameters = sum(parameter.numel() for parameter in empty_transformer(subject.config).parameters())
    assert full.total == full.quantized + full.weight_only + full.kept == 2 * parameters


def test_methods_of_one_recipe_weigh_the_same_and_less_than_full_precision(subject: Subject) -> None:
    found = counted(subject, "dvd-quant:W4A6", "minmax:W4A8")
    assert [f"{m.label} {m.bits}".strip() for m in found.methods] == [
        "Full precision",
        "DVD-Quant W4A8",
        "DVD-Quant W4A4",
        "MinMax W4A8",
    ]
    full, *others = found.methods
    assert full.ratio == 1.0
    assert {method.weights for method in others} == {others[0].weights}
    for method in others:
        assert method.ratio == full.weights.total / method.weights.total > 2
        assert (method.measured_pass_bytes, method.fits) == (None, None)


def test_both_transformers_of_a_pipeline_are_weighed(tmp_path: Path) -> None:
    shutil.copytree(WAN.folder, tmp_path / "two")
    shutil.copytree(WAN.folder / "transformer", tmp_path / "two/transformer_2")
    index = json.loads((tmp_path / "two/model_index.json").read_text(encoding="utf-8"))
    index["transformer_2"] = index["transformer"]
    (tmp_path / "two/model_index.json").write_text(json.dumps(index), encoding="utf-8")
    one, two = open_subject("memory", "wan", None), open_subject("memory", str(tmp_path / "two"), "17x64x64")
    for recipe in (None, Recipe.named("dvd-quant")):
        assert weight_parts(two, recipe).total == 2 * weight_parts(one, recipe).total


def test_components_are_the_files_of_the_other_parts() -> None:
    found = counted(open_subject("memory", "wan", None)).components
    assert found == {
        name: (WAN.folder / name / file).stat().st_size
        for name, file in (("text_encoder", "model.safetensors"), ("vae", "diffusion_pytorch_model.safetensors"))
    }
    assert counted(open_subject("memory", "wan2.1-1.3b", "5x64x64")).components == {}


def test_a_pass_is_counted_as_dvdq_inspect_counts_it() -> None:
    # HunyuanVideo keeps nothing in float32, so that both count the same tensors.
    found = counted(open_subject("memory", "hunyuan-video-13b", "5x64x64"))
    config = open_subject("memory", "hunyuan-video-13b", "5x64x64").config
    expected = pass_bytes(empty_transformer(config), Recipe.named("dvd-quant"), (2, 8, 8))
    assert [method.counted_pass_bytes for method in found.methods[1:]] == [expected, expected]
    assert found.dtype == "bfloat16"


@pytest.fixture
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_the_count_is_what_the_allocator_gives_out(subject: Subject) -> None:
    """Where attention has a small buffer a thread; quantized layers may keep a little beside what is counted."""
    full, *quantized = counted(subject, device=CPU).methods
    assert full.measured_pass_bytes == full.counted_pass_bytes
    assert len(quantized) == 2
    for method in quantized:
        assert method.measured_pass_bytes is not None
        assert method.measured_pass_bytes >= method.counted_pass_bytes
        assert method.fits


def test_a_peak_is_of_what_is_alive_at_once() -> None:
    def call() -> None:
        first = torch.ones(1000)
        second = first + first
        del first
        third = second * second
        del second, third
        torch.ones(1500)

    assert measured_bytes(CPU, call) == 4 * 2000


def test_a_method_that_does_not_fit_is_told_from_one_that_was_not_run(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(device: torch.device, turn: Any) -> int:
        if turn.variant.recipe is None:
            raise torch.OutOfMemoryError
        return 123

    monkeypatch.setattr(run, "measured_bytes", measured)
    found = counted(subject, device=CPU)
    assert [(method.measured_pass_bytes, method.fits) for method in found.methods] == [
        (None, False),
        (123, True),
        (123, True),
    ]
    page = memory_markdown(found)
    assert page.count("does not fit") == 1


def test_parts_of_a_family_that_keeps_full_activations_are_told_apart() -> None:
    subject = open_subject("memory", "hunyuan-video-13b", "5x64x64")
    full, quantized = weight_parts(subject, None), weight_parts(subject, Recipe.named("dvd-quant"))
    transformer = empty_transformer(subject.config)
    treatments = family_of(transformer).treatments(transformer)
    linears = [transformer.get_submodule(name) for name, how in treatments.items() if how == "weight-only"]
    assert full.weight_only == 2 * sum(linear.weight.numel() for linear in linears)
    assert quantized.weight_only < full.weight_only / 3.9
    assert quantized.kept == full.kept


@pytest.fixture
def app() -> typer.Typer:
    built = typer.Typer()
    built.command("memory")(memory)
    return built


def test_the_command_writes_json_and_a_table(app: typer.Typer, tmp_path: Path) -> None:
    out = tmp_path / "memory"
    arguments = ["hunyuan-video", "--device", "cpu", "--method", "minmax:W4A4", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    text = (out / "memory.json").read_text(encoding="utf-8")
    found = msgspec.json.decode(text, type=Memory)
    assert json.dumps(dataclasses.asdict(found), indent=1, allow_nan=False) + "\n" == text
    assert (found.model, found.tokens, found.device) == (
        "moving shapes, hunyuan-video",
        80,
        found.provenance["processor"],
    )
    page = (out / "memory.md").read_text(encoding="utf-8")
    for word in ("Full precision", "MinMax W4A4", "weight only", "text_encoder_2", "float32"):
        assert word in page
    assert "MinMax" in done.stdout
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(again.stdout)["methods"] == json.loads(text)["methods"]


def test_bad_input_is_one_error_and_nothing_is_written(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, message in (
        (["nowhere"], "memory: nowhere: expected a folder"),
        (["wan2.1-14b"], "memory: --video: expected frames"),
        (["wan", "--method", "dvd-quant"], "memory: --method: expected RECIPE:BITS"),
        (["wan", "--device", "cuda"], "memory: --device: expected a CUDA device"),
    ):
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
        assert isinstance(done.exception, DvdqError)
        assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []
