"""A pass of a transformer: what is measured of it, by clocks that tick as the tests say, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from dvdq_eval.cli.latency import latency
from dvdq_eval.latency import run
from dvdq_eval.latency.results import Latency, MethodTime
from dvdq_eval.latency.rounds import take_rounds
from dvdq_eval.latency.run import measure_latency
from dvdq_eval.latency.taps import counted_linears, dissect
from dvdq_eval.methods import parse_methods
from dvdq_eval.passes.running import Pass, Variant, build, passes_of, variants_of
from dvdq_eval.passes.subject import Subject, open_subject
from dvdq_eval.records import read_record, write_record
from dvdq_models import DvdqError, Recipe, quantize, save
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.switching.hook import hook_of

CPU = torch.device("cpu")
BLOCKS, TEXT, VIDEO = 2, 6, 8
"""Of the small models: blocks, tokens of the text, and of a video of 5x32x32."""
METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A4")


class Ticks:
    """A clock on which one second passes from each mark to the next."""

    def __init__(self) -> None:
        self.marks = self.settled = 0

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def settle(self) -> None:
        self.settled += 1

    def seconds(self, start: int, end: int) -> float:
        return float(end - start)


class Calls(TorchDispatchMode):
    """A clock on which one second passes with each operation whose name holds ``name``, and none otherwise."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.calls = name, 0
        self.arguments: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.name in str(func):
            self.calls += 1
            self.arguments.append(args)
        return func(*args, **(kwargs or {}))

    def mark(self) -> int:
        return self.calls

    def settle(self) -> None:
        pass

    def seconds(self, start: int, end: int) -> float:
        return float(end - start)


@pytest.fixture(scope="session")
def wan(tiny_transformer: Callable[[int], WanTransformer3DModel], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A small Wan transformer as a checkpoint."""
    folder = tmp_path_factory.mktemp("wan")
    tiny_transformer(8).save_pretrained(str(folder))
    return open_subject("latency", str(folder), "5x32x32", text_tokens=TEXT)


@pytest.fixture(scope="session")
def hunyuan(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A small HunyuanVideo transformer, of which there is a configuration alone."""
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=64,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        mlp_ratio=3.0,
        text_embed_dim=32,
        pooled_projection_dim=16,
        rope_axes_dim=(16, 24, 24),
    )
    path = tmp_path_factory.mktemp("hunyuan") / "small.json"
    transformer.save_config(str(path.parent))
    (path.parent / "config.json").rename(path)
    return open_subject("latency", str(path), "5x32x32", text_tokens=TEXT)


@pytest.fixture(params=["wan", "hunyuan"])
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.getfixturevalue(request.param)
    return found


def measured(subject: Subject, *methods: str, clock: Any = None, **options: Any) -> Latency:
    options = {"rounds": 2, "device": CPU} | options
    return measure_latency(subject, parse_methods("latency", methods or METHODS), clock=clock, **options)


def one_pass(subject: Subject, method: str | None = None) -> Pass:
    variant = variants_of("latency", parse_methods("latency", [] if method is None else [method]))[-1]
    turn = next(passes_of(subject, variant, CPU))
    turn.prepare()
    return turn


def tokens_of(name: str) -> int:
    """Rows that a linear multiplies, by its place in the model."""
    if name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear")):
        return 1
    if "attn2.to_k" in name or "attn2.to_v" in name or "add" in name or "ff_context" in name:
        return TEXT
    return VIDEO + TEXT if name.startswith("single_") else VIDEO


def test_every_linear_that_is_quantized_is_there_once_with_its_tokens(subject: Subject) -> None:
    full = build(subject, None, CPU)
    names = sorted(counted_linears(full))
    assert names == sorted(counted_linears(build(subject, Recipe.named("dvd-quant"), CPU)))
    for method in measured(subject, clock=Ticks(), rounds=1).methods:
        assert sorted(layer.name for layer in method.layers) == names
        for layer in method.layers:
            assert layer.tokens == tokens_of(layer.name)
            linear = full.get_submodule(layer.name)
            assert (layer.out_features, layer.in_features) == (linear.out_features, linear.in_features)
            assert layer.kernels.startswith("cpu: " if method.bits else "torch: linear")


def test_parts_are_what_lies_between_marks(subject: Subject) -> None:
    found = measured(subject, clock=Ticks())
    assert [method.bits for method in found.methods] == ["", "W4A8", "W4A4"]
    calls = 2 * BLOCKS  # of attention: self and cross in Wan; one in each of HunyuanVideo's blocks
    if subject.name == "small":
        calls = 2
    for method in found.methods:
        linears, parts = len(method.layers), method.parts
        weight_only = sum(layer.tokens == 1 for layer in method.layers)
        quantizing = linears - weight_only if method.bits else 0
        assert (parts.rotate_quantize, parts.products, parts.attention) == (quantizing, linears, calls)
        # A mark more than the linear's own stands between two of them.
        assert parts.total == 1 + 2 * linears + 2 * calls + quantizing
        assert parts.rotate_quantize == sum(layer.rotate_quantize for layer in method.layers)
        assert parts.products == sum(layer.product for layer in method.layers)
        assert (method.step.p20, method.step.p50, method.step.p80, method.step.rounds) == (1.0, 1.0, 1.0, 2)
        assert method.ratio == 1.0


@pytest.mark.parametrize("bits", ["W4A8", "W4A4"])
def test_q_k_and_v_share_one_quantization_that_the_first_pays_for(wan: Subject, bits: str) -> None:
    turn = one_pass(wan, f"dvd-quant:{bits}")
    with Calls("dvdq.rotate_quantize") as clock:
        found = dissect(turn.transformer, turn, clock)
    paid = {name: piece.rotate_quantize for name, piece in found.layers.items()}
    for block in range(BLOCKS):
        assert [paid[f"blocks.{block}.attn1.to_{part}"] for part in "qkv"] == [1, 0, 0]
        assert [paid[f"blocks.{block}.attn2.to_{part}"] for part in "qkv"] == [1, 1, 0]
    assert found.rotate_quantize == found.total == clock.calls
    assert found.products == found.attention == found.rest == 0


def test_integer_products_are_products_at_the_width_that_was_asked_for(subject: Subject) -> None:
    for width in (8, 4):
        turn = one_pass(subject, f"dvd-quant:W4A{width}")
        with Calls("dvdq.integer_linear") as clock:
            found = dissect(turn.transformer, turn, clock)
        assert {piece.product for piece in found.layers.values()} == ({1.0} if subject.name != "small" else {0.0, 1.0})
        assert found.products == found.total == clock.calls > 0
        assert {arguments[7] for arguments in clock.arguments} == {width}


def test_full_precision_multiplies_floats_in_the_same_linears(wan: Subject) -> None:
    turn = one_pass(wan)
    with Calls("aten.addmm") as clock:
        found = dissect(turn.transformer, turn, clock)
    assert {piece.product for piece in found.layers.values()} == {1.0}
    assert found.rotate_quantize == found.attention == 0
    kept = sum(isinstance(module, torch.nn.Linear) for module in turn.transformer.modules()) - len(found.layers)
    assert found.rest == kept


@pytest.mark.parametrize(("backend", "operation"), [("native", "scaled_dot_product"), ("_native_math", "_softmax")])
def test_attention_is_caught_whichever_backend_runs(wan: Subject, backend: str, operation: str) -> None:
    with Calls(operation) as clock:
        found = measured(wan, clock=clock, rounds=1, attention=backend)
    for method in found.methods:
        assert method.attention == backend
        assert method.parts.attention == method.parts.total == 2 * BLOCKS


def test_times_of_a_real_clock_add_up(subject: Subject) -> None:
    for method in measured(subject).methods:
        parts = method.parts
        assert parts.total == parts.rotate_quantize + parts.products + parts.attention + parts.rest
        assert min(parts.products, parts.attention, parts.rest) > 0
        assert (parts.rotate_quantize > 0) == bool(method.bits)
        assert 0 < method.step.p20 <= method.step.p50 <= method.step.p80


@pytest.mark.parametrize("method", [None, "dvd-quant:W4A4"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(subject: Subject, method: str | None, fails: bool) -> None:
    turn = one_pass(subject, method)

    def state() -> Any:
        hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in turn.transformer.modules()]
        shared = {} if method is None else dict(vars(hook_of(turn.transformer).state))
        return hooks, shared, dict(_AttentionBackendRegistry._backends)

    def call() -> None:
        turn()
        if fails:
            raise RuntimeError

    output, before = turn(), state()
    if fails:
        with pytest.raises(RuntimeError):
            dissect(turn.transformer, call, Ticks())
    else:
        dissect(turn.transformer, call, Ticks())
    assert state() == before
    turn.prepare()
    assert torch.equal(turn(), output)


def test_methods_take_turns(wan: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    call = Pass.__call__
    monkeypatch.setattr(Pass, "__call__", lambda turn: (ran.append(turn.title), call(turn))[1])
    found = measured(wan, clock=Ticks(), rounds=3)
    once = ["Full precision"] * 2 + ["DVD-Quant W4A8"] * 2 + ["DVD-Quant W4A4"] * 2
    assert ran == 4 * once  # untouched and taken apart, the first round to warm up
    assert found.in_turns


def test_methods_that_do_not_fit_together_run_one_after_another(wan: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[weakref.ref[Any]] = []

    def watched(*arguments: Any) -> Iterator[Pass]:
        assert all(earlier() is None for earlier in built)
        for turn in passes_of(*arguments):
            built.append(weakref.ref(turn.transformer))
            yield turn

    monkeypatch.setattr(run, "passes_of", watched)
    monkeypatch.setattr(run, "fit_together", lambda *_: False)
    found = measured(wan, "dvd-quant:W4A8", "minmax:W4A8", "dvd-quant:W4A4", clock=Ticks(), rounds=1)
    assert len(built) == 4
    assert not found.in_turns
    assert [f"{m.label} {m.bits}" for m in found.methods[1:]] == ["DVD-Quant W4A8", "DVD-Quant W4A4", "MinMax W4A8"]
    assert {method.ratio for method in found.methods} == {1.0}


class Scripted(Ticks):
    """A clock that takes the seconds of untouched passes from a list: it is read when it has settled around one."""

    def __init__(self, script: list[float]) -> None:
        super().__init__()
        self.script = script

    def seconds(self, start: int, end: int) -> float:
        return self.script.pop(0) if self.settled % 4 == 2 else 0.0


def test_percentiles_are_over_rounds_without_the_first(wan: Subject) -> None:
    # The round that warms up, then five with a pass of full precision and one at W4A8 each.
    script = [99.0, 99.0, *(seconds for n in range(1, 6) for seconds in (float(n), n / 2))]
    full, quantized = measured(wan, "dvd-quant:W4A8", clock=Scripted(script), rounds=5).methods
    assert dataclasses.astuple(full.step) == pytest.approx((1.8, 3.0, 4.2, 5))
    assert dataclasses.astuple(quantized.step) == pytest.approx((0.9, 1.5, 2.1, 5))
    assert quantized.ratio == pytest.approx(2.0)


@pytest.mark.parametrize(("after", "kept"), [(6, 2), (5, 1), (4, 1), (3, None), (0, None)])
def test_an_interrupt_keeps_the_rounds_that_are_complete(wan: Subject, after: int, kept: int | None) -> None:
    variant = Variant("Full precision", None, (16,))
    turns = [next(passes_of(wan, variant, CPU)) for _ in range(2)]

    def tell(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    if kept is None:
        with pytest.raises(KeyboardInterrupt):
            take_rounds(turns, 9, Ticks(), CPU, tell)
    else:
        taken = take_rounds(turns, 9, Ticks(), CPU, tell)
        assert [len(one.seconds) for one in taken] == [len(one.apart) for one in taken] == [kept, kept]


def test_an_interrupt_ends_a_run_with_what_was_measured(wan: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "fit_together", lambda *_: False)

    def tell(what: str, done: int, total: int) -> None:
        if (what, done) == ("Passes, DVD-Quant", 6):
            raise KeyboardInterrupt

    found = measured(wan, *METHODS, "minmax:W4A8", clock=Ticks(), rounds=5, tell=tell)
    assert [(m.label, m.step.rounds) for m in found.methods] == [("Full precision", 5), *[("DVD-Quant", 2)] * 2]
    assert len(found.videos) == 3


def test_an_output_that_is_not_finite_is_refused(wan: Subject) -> None:
    turn = one_pass(wan, "dvd-quant:W4A8")
    turn.transformer.proj_out.bias.data.fill_(float("nan"))
    with pytest.raises(DvdqError, match="latency: DVD-Quant W4A8: expected a finite output, got NaN or Inf"):
        take_rounds([turn], 1, Ticks(), CPU, lambda done, total: None)


def test_what_does_not_fit_at_all_is_one_error(wan: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(run, "take_rounds", full)
    with pytest.raises(DvdqError, match="fit into the device's memory, got tried to allocate 2 GiB"):
        measured(wan)


def test_compiled_blocks_are_taken_apart_as_they_are_written(wan: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compile_blocks = WanTransformer3DModel.compile_repeated_blocks
    monkeypatch.setattr(
        WanTransformer3DModel,
        "compile_repeated_blocks",
        lambda self, **options: compile_blocks(self, backend=backend, **options),
    )
    torch._dynamo.reset()
    compiled = measured(wan, clock=Ticks(), compiled=True)
    assert len(graphs) == 3  # one of full precision, one for each width; none for the rounds after the first
    plain = measured(wan, clock=Ticks())
    assert compiled.compiled
    assert not plain.compiled
    assert [method.parts for method in compiled.methods] == [method.parts for method in plain.methods]
    torch._dynamo.reset()


def test_json_round_trips(subject: Subject, tmp_path: Path) -> None:
    found = measured(subject, rounds=1)
    write_record(tmp_path / "latency.json", found)
    assert read_record(tmp_path / "latency.json", Latency) == found
    assert (found.tokens, found.frames, found.height, found.width) == (VIDEO, 5, 32, 32)
    assert (found.device, found.dtype) == (found.provenance["processor"], "float32")
    assert all(isinstance(method, MethodTime) and method.peak_bytes is None for method in found.methods)


@pytest.fixture
def app() -> typer.Typer:
    built = typer.Typer()
    built.command("latency")(latency)
    return built


def test_the_command_writes_json_and_tables(app: typer.Typer, hunyuan: Subject, tmp_path: Path) -> None:
    out = tmp_path / "new" / "latency"
    arguments = [str(hunyuan.config), "--video", "5x32x32", "--text-tokens", "6", "--rounds", "1", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--method", "minmax:W4A4", "--steps", "7", "--passes", "3"])
    assert done.exit_code == 0, done.output
    found = read_record(out / "latency.json", Latency)
    assert (found.model, found.weights, found.videos[0].steps_at, found.videos[0].passes) == (
        "small",
        "random",
        {"16": 7},
        3,
    )
    page = (out / "latency.md").read_text(encoding="utf-8")
    for word in ("Full precision", "MinMax W4A4", "rotate and quantize", "attention", "384 × 128", "5x32x32"):
        assert word in page
    assert "MinMax W4A4" in done.stdout
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(again.stdout) == json.loads((out / "latency.json").read_text(encoding="utf-8"))
    assert [path.name for path in out.parent.iterdir()] == ["latency"]


def test_a_bundled_pipeline_brings_its_own_video_text_and_steps() -> None:
    found = open_subject("latency", "wan", None)
    assert (found.video, found.latent, found.text_tokens, found.steps) == ((17, 64, 64), (5, 8, 8), 16, 30)
    assert (found.tokens, found.passes) == (80, 2)
    assert open_subject("latency", "hunyuan-video", None).passes == 1
    assert (found.name, found.source) == ("moving shapes, wan", "moving shapes, wan")
    assert open_subject("latency", "wan", "5x64x64", text_tokens=4, random=True).source == "random"


def test_a_model_has_the_name_of_its_folder_or_file(wan: Subject, hunyuan: Subject, tmp_path: Path) -> None:
    folder = tmp_path / "Wan2.1-T2V-1.3B"
    shutil.copytree(str(wan.weights), folder)
    for model, name, source in (
        (folder, "Wan2.1-T2V-1.3B", "Wan2.1-T2V-1.3B"),
        (folder / "config.json", "Wan2.1-T2V-1.3B", "random"),
        (hunyuan.config, "small", "random"),
    ):
        found = open_subject("latency", str(model), "5x32x32")
        assert (found.name, found.source) == (name, source)


PUBLISHED = {"wan2.1-1.3b": 1_418_996_800, "wan2.1-14b": 14_288_491_584, "hunyuan-video-13b": 12_821_012_544}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_have_the_published_size(name: str) -> None:
    found = open_subject("latency", name, "81x480x832")
    assert found.tokens == 32_760
    assert sum(parameter.numel() for parameter in empty_transformer(found.config).parameters()) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("model", "video", "message"),
    [
        (
            "nowhere",
            "5x64x64",
            "latency: nowhere: expected a folder, a config.json, or one of wan, hunyuan-video, wan-outliers",
        ),
        ("wan2.1-14b", None, "--video: expected frames x height x width, as 81x480x832, got none"),
        ("wan", "480p", "--video: expected frames x height x width, as 81x480x832, got 480p"),
        ("wan", "0x64x64", "--video: expected frames"),
        ("wan", "17x64x60", "--video: expected whole latents, in patches of 1x2x2, e.g. 81x480x832, got 17x64x60"),
        ("wan", "17x64x72", "--video: expected whole latents"),
        ("wan", "16x64x64", "--video: expected whole latents"),
    ],
)
def test_bad_subjects_are_one_error(model: str, video: str | None, message: str) -> None:
    with pytest.raises(DvdqError) as error:
        open_subject("latency", model, video)
    assert message in str(error.value)


def test_a_quantized_checkpoint_is_refused_but_not_its_configuration(wan: Subject, tmp_path: Path) -> None:
    transformer = quantize(build(wan, None, CPU), Recipe.named("dvd-quant"))
    save(transformer, tmp_path / "quantized")
    with pytest.raises(DvdqError, match="expected weights in full precision"):
        open_subject("latency", str(tmp_path / "quantized"), "5x32x32")
    for model, random in ((tmp_path / "quantized", True), (tmp_path / "quantized/config.json", False)):
        assert open_subject("latency", str(model), "5x32x32", random=random).source == "random"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "dvd-quant"], "--method: expected RECIPE:BITS"),
        (["--method", "gptq:W4A4"], "recipe: expected one of"),
        (["--method", "dvd-quant:W4A6"], "DVD-Quant W4A6: expected --trace of a video"),
        (["--trace", "missing.json"], "missing.json: expected the JSON record of a video"),
        (["--attention", "slow"], "attention: slow: expected one of"),
        (["--device", "cuda"], "--device: expected a CUDA device, got none here"),
    ],
)
def test_bad_options_are_one_error_and_nothing_is_written(
    app: typer.Typer, wan: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, [str(wan.weights), "--video", "5x32x32", "--rounds", "1", "--out", str(out), *arguments]
    )
    assert isinstance(done.exception, DvdqError)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_transformer_that_takes_more_is_given_it(tmp_path: Path) -> None:
    config = {"_class_name": "WanVACETransformer3DModel", "num_layers": 1, "num_attention_heads": 2, "vace_layers": [0]}
    (tmp_path / "vace.json").write_text(json.dumps(config), encoding="utf-8")
    subject = open_subject("latency", str(tmp_path / "vace.json"), "5x32x32")
    inputs = subject.inputs(empty_transformer(subject.config), torch.bfloat16, torch.device("meta"))
    assert inputs["control_hidden_states"].shape == (1, 96, 2, 4, 4)
