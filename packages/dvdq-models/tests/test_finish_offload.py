"""Second sets of codes in the computer's memory: the same videos, two sets on the device at most."""

from __future__ import annotations

import copy
import dataclasses
import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, load, quantize, save, save_pipeline
from dvdq_models.checkpoint.writing import write_config
from dvdq_models.cli import app
from dvdq_models.cli.opening import check_opening, open_pipeline
from dvdq_models.layers import prefetching
from dvdq_models.layers.linear import SECOND, QuantizedLinear
from dvdq_models.layers.prefetching import Prefetcher
from dvdq_models.running.placement import FinishOn, Offload, offload_finish
from dvdq_models.switching.hook import follow
from dvdq_models.teacache import enable_teacache
from dvdq_reference.spec.recipe import BitSchedule, WeightRule

STEPS = 5
SCHEDULE = BitSchedule("low", low=4, high=8, last_high=2)
RECIPE = Recipe.named("minmax", "W4A4", schedule=SCHEDULE, finish=WeightRule(4, "minmax", 64))
SYMMETRIC = Recipe.named("quarot", "W4A4", schedule=SCHEDULE, finish=WeightRule(4, "minmax", 64, symmetric=True))
CPU = torch.device("cpu")
Generate = Callable[..., torch.Tensor]


def _layers(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


@pytest.fixture
def resident(pipeline: Any, generate: Generate) -> torch.Tensor:
    """The latents with every set on the device, made before ``pipeline`` is changed."""
    quantize(pipeline.transformer, RECIPE)
    return generate(pipeline, STEPS)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Sets that were copied, those that nobody had foreseen, and how many are there, now and at most."""
    count = {"copied": 0, "late": 0, "live": 0, "most": 0}
    begin, take = Prefetcher._begin, Prefetcher.take

    def counted(self: Prefetcher, kept: Any, device: torch.device) -> Any:
        made = begin(self, kept, device)
        count["copied"] += 1
        count["live"] += 1
        count["most"] = max(count["most"], count["live"])
        weakref.finalize(made.tensors[0].untyped_storage(), lambda: count.update(live=count["live"] - 1))
        return made

    def judged(self: Prefetcher, kept: Any, device: torch.device) -> Any:
        count["late"] += self._ahead is None or self._ahead.key != kept[0].data_ptr()
        return take(self, kept, device)

    monkeypatch.setattr(Prefetcher, "_begin", counted)
    monkeypatch.setattr(Prefetcher, "take", judged)
    return count


def test_videos_are_the_same_and_two_sets_are_on_the_device(
    pipeline: Any, generate: Generate, resident: torch.Tensor, copies: dict[str, int]
) -> None:
    offload_finish(pipeline.transformer)
    assert torch.equal(generate(pipeline, STEPS), resident)
    layers = len(_layers(pipeline.transformer))
    # Two steps of two passes. The first learns the order; of the others each waits for its first layer alone.
    assert copies == {"copied": 4 * layers, "late": layers + 3, "live": 0, "most": 2}
    assert torch.equal(generate(pipeline, STEPS), resident)
    assert copies["late"] == layers + 3 + 4


@pytest.mark.parametrize("recipe", [RECIPE, SYMMETRIC], ids=lambda recipe: recipe.name)
def test_other_layers_and_grids(hunyuan_transformer: Any, call_hunyuan: Generate, recipe: Recipe) -> None:
    """Also layers whose activations stay full, and sets without zero-points."""
    quantize(hunyuan_transformer, recipe)
    layers = _layers(hunyuan_transformer).values()
    assert {layer.activation is None for layer in layers} == {True, False}
    hunyuan_transformer._diffusers_hook.remove_hook("dvdq_bit_switching")
    next(iter(layers)).state.finishing = True
    expected = call_hunyuan(hunyuan_transformer)
    offload_finish(hunyuan_transformer)
    assert all(torch.equal(call_hunyuan(hunyuan_transformer), expected) for _ in range(3))


class _Late(TorchDispatchMode):
    """Copies of a stream are not made where they are asked for, but when somebody waits for them."""

    def __init__(self, waiting: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        super().__init__()
        self.waiting = waiting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is torch.ops.aten.copy_.default
        target, source, non_blocking = args
        assert non_blocking
        self.waiting.append((target, source))
        return target


class _Streams:
    """Streams as a GPU has them, in their latest order: nothing happens before it has to."""

    def __init__(self) -> None:
        self.computing, self.made = _Stream(), list[_Stream]()

    def Stream(self, device: torch.device) -> _Stream:
        self.made.append(_Stream())
        return self.made[-1]

    def current_stream(self, device: torch.device) -> _Stream:
        return self.computing

    @contextmanager
    def stream(self, copying: _Stream) -> Iterator[None]:
        assert copying is not self.computing
        # Memory that a copy writes to may have been in use until now.
        assert copying.waited_for == (self.computing, self.computing.events)
        with _Late(copying.waiting):
            yield


class _Stream:
    def __init__(self) -> None:
        self.waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.events, self.waited_for = 0, (self, 0)

    def record_event(self) -> tuple[_Stream, int]:
        self.events += 1
        return self, self.events

    def wait_event(self, event: tuple[_Stream, int]) -> None:
        self.waited_for = event
        for target, source in event[0].waiting:
            target.copy_(source)
        event[0].waiting.clear()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> _Streams:
    """In place of those of a CPU, with zeros where nothing was copied yet."""
    streams, empty_like = _Streams(), torch.empty_like
    monkeypatch.setattr(prefetching, "_streams_of", lambda _: streams)
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: empty_like(*args, **kwargs).zero_())
    return streams


def test_what_computes_waits_for_its_copy_and_a_copy_for_what_computed(
    pipeline: Any, generate: Generate, resident: torch.Tensor, streams: _Streams
) -> None:
    offload_finish(pipeline.transformer)
    assert torch.equal(generate(pipeline, STEPS), resident)
    (copying,) = streams.made
    assert not copying.waiting


def test_layers_in_another_order_get_their_own_sets(streams: _Streams, copies: dict[str, int]) -> None:
    """And a set that nobody takes is copied to the end before its memory can be another's."""
    prefetcher = Prefetcher()
    sets = {name: prefetcher.keep([torch.full((3,), float(ord(name)))]) for name in "abcd"}
    for name in "abcdacbdabcbad":
        assert torch.equal(prefetcher.take(sets[name], CPU)[0], sets[name][0]), name
    (copying,) = streams.made
    prefetcher.take(sets["a"], CPU)
    assert copying.waiting
    del prefetcher
    assert not copying.waiting
    assert (copies["live"], copies["most"]) == (0, 2)


def test_they_stay_where_they_are_and_belong_to_the_state(transformer: Any, tmp_path: Path) -> None:
    quantize(transformer, RECIPE)
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    offload_finish(transformer)
    held = {name: tensor for name, tensor in transformer.named_parameters() if "finish_" in name}
    assert not held
    layer = transformer.get_submodule("blocks.0.attn1.to_q")
    kept = [getattr(layer, name) for name in SECOND]
    after = load(save(transformer, tmp_path / "ours")).state_dict()
    transformer.save_pretrained(str(tmp_path / "theirs"))
    for found in (transformer.state_dict(), after, load(tmp_path / "theirs").state_dict()):
        assert found.keys() == before.keys()
        assert all(found[name].dtype == t.dtype and torch.equal(found[name], t) for name, t in before.items())
    for assign in (False, True):
        other = {name: tensor + 1 if "finish_" in name else tensor for name, tensor in before.items()}
        transformer.load_state_dict(other, assign=assign)
        assert all(torch.equal(t, other[name]) for name, t in transformer.state_dict().items())
        assert not [name for name, _ in transformer.named_parameters() if "finish_" in name]
        before = other
    transformer.to("meta")
    assert layer.qweight.is_meta
    assert all(getattr(layer, name).device == CPU for name in SECOND)
    assert [tensor.dtype for tensor in kept] == [torch.uint8, torch.float32, torch.int16]


def test_a_copy_has_sets_of_its_own(
    pipeline: Any, generate: Generate, resident: torch.Tensor, copies: dict[str, int]
) -> None:
    offload_finish(pipeline.transformer)
    original = _layers(pipeline.transformer)
    pipeline.transformer = copy.deepcopy(pipeline.transformer)
    for name, layer in _layers(pipeline.transformer).items():
        assert layer.finish_qweight.data_ptr() != original[name].finish_qweight.data_ptr()
        assert layer.prefetcher is not original[name].prefetcher
    assert torch.equal(generate(pipeline, STEPS), resident)
    assert copies["late"] == len(original) + 3


def test_beside_lora_and_a_cache(pipeline: Any, generate: Generate) -> None:
    quantize(pipeline.transformer, RECIPE)
    follow(pipeline)
    name, generator = "blocks.0.attn1.to_q", torch.Generator().manual_seed(2)
    lora = {
        f"lora_{part}": torch.randn(shape, generator=generator) for part, shape in (("A", (4, 128)), ("B", (128, 4)))
    }
    pipeline.transformer.load_lora_adapter({f"transformer.{name}.{part}.weight": t for part, t in lora.items()})
    enable_teacache(pipeline.transformer, 0.2, coefficients="wan2.1-t2v-14b", pipeline=pipeline)
    expected = generate(pipeline, STEPS)
    offload_finish(pipeline.transformer)
    assert torch.equal(generate(pipeline, STEPS), expected)


OFFLOADING: dict[str, Callable[[Any, Path], object]] = {
    "blocks": lambda m, _: m.enable_group_offload(CPU, CPU, offload_type="block_level", num_blocks_per_group=1),
    "leaves": lambda m, _: m.enable_group_offload(CPU, CPU, offload_type="leaf_level"),
    "disk": lambda m, folder: m.enable_group_offload(
        CPU, CPU, offload_type="leaf_level", offload_to_disk_path=str(folder / "groups")
    ),
    "model": lambda m, _: cpu_offload_with_hook(m, CPU),
    "sequential": lambda m, _: [cpu_offload(part, CPU, offload_buffers=False) for part in m.children()],
}


@pytest.mark.parametrize("how", OFFLOADING)
def test_with_offloading_of_the_rest(
    pipeline: Any, generate: Generate, resident: torch.Tensor, how: str, tmp_path: Path, copies: dict[str, int]
) -> None:
    offload_finish(pipeline.transformer)
    OFFLOADING[how](pipeline.transformer, tmp_path)
    latents = generate(pipeline, STEPS)
    if how == "disk":  # what is read there is not aligned, and full precision then rounds otherwise
        assert (latents - resident).norm() < 1e-3 * resident.norm()
    else:
        assert torch.equal(latents, resident)
    assert copies["most"] == 2


@pytest.mark.parametrize("how", ["blocks", "leaves", "disk", "sequential"])
def test_offloading_of_layers_comes_afterwards(transformer: Any, how: str, tmp_path: Path) -> None:
    OFFLOADING[how](quantize(transformer, RECIPE), tmp_path)
    with pytest.raises(DvdqError, match="offload_finish: WanTransformer3DModel: expected a model without offloading"):
        offload_finish(transformer)


def test_what_has_no_second_sets_is_refused(transformer: Any) -> None:
    with pytest.raises(DvdqError, match="expected layers with a second set of codes, got none"):
        offload_finish(transformer)
    with pytest.raises(DvdqError, match="expected layers with a second set of codes, got none"):
        offload_finish(quantize(transformer, Recipe.named("minmax", "W4A4")))


def test_the_command_keeps_them_there_or_says_why_not(
    pipeline_folder: Path, transformer: Any, tmp_path: Path, generate: Generate
) -> None:
    quantized = save_pipeline(pipeline_folder, quantize(transformer, RECIPE), tmp_path / "q")
    opened = [
        open_pipeline(quantized, device="cpu", offload=Offload.NONE, backend="auto", finish_on=where)
        for where in FinishOn
    ]
    assert [_layers(p.transformer)["blocks.0.ffn.net.2"].prefetcher is not None for p in opened] == [False, True]
    assert torch.equal(*(generate(p, STEPS) for p in opened))
    check_opening("generate", quantized, "meta", Offload.NONE, FinishOn.HOST)
    expected = "generate: --finish-on: expected weights with a second set of codes, as of dvd-quant-finish, got "
    with pytest.raises(DvdqError, match=f"{expected}transformer in full precision"):
        check_opening("generate", pipeline_folder, "meta", Offload.NONE, FinishOn.HOST)
    plain = dataclasses.replace(RECIPE, finish=None)
    write_config(quantized / "transformer", json.loads((quantized / "transformer/config.json").read_text()), plain)
    with pytest.raises(DvdqError, match=f"{expected}transformer by minmax"):
        check_opening("generate", quantized, "meta", Offload.NONE, FinishOn.HOST)
    for command in ("generate", "tune-delta"):
        result = CliRunner().invoke(app, [command, str(quantized), "--prompt", "a", "--finish-on", "host"])
        assert "--finish-on: expected a device apart from main memory, as cuda, got cpu" in str(result.exception)


def test_what_stays_on_the_device_is_counted(transformer: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(transformer.to_json_string())
    command = ["inspect", str(tmp_path), "--recipe", "minmax", "--bits", "W4A4", "--last-high", "2"]
    plain, finishing = (
        json.loads(CliRunner().invoke(app, [*command, *more, "--json"]).stdout) for more in ([], ["--finish"])
    )
    assert plain["bytes_with_finish_on_host"] == plain["bytes_after"]
    quantize(transformer, dataclasses.replace(RECIPE, finish=RECIPE.weight))
    sets = [sum(getattr(layer, name).nbytes for name in SECOND) for layer in _layers(transformer).values()]
    assert finishing["bytes_after"] == plain["bytes_after"] + sum(sets)
    assert finishing["bytes_with_finish_on_host"] == plain["bytes_after"] + sum(sorted(sets)[-2:])
    tables = [CliRunner().invoke(app, [*command, *more], terminal_width=200).output for more in ([], ["--finish"])]
    assert ["--finish-on host" in table for table in tables] == [False, True]
