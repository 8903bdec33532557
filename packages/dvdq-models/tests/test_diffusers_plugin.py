"""Inside diffusers: quantized as it is read, saved, read again, in pipelines, on devices; always the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    PipelineQuantizationConfig,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file

from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, quantize, save, trace
from dvdq_models.layers import linear
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.recipe import BitSchedule

RECIPE = Recipe.named("dvd-quant", "W4A6")
CONFIG = DVDQuantConfig("dvd-quant", "W4A6")
FAMILIES = ("transformer", "hunyuan_transformer")
Call = Callable[..., torch.Tensor]


@pytest.fixture
def forward(call: Call, call_hunyuan: Call) -> Callable[[Any], torch.Tensor]:
    """One pass of either family, the schedule at its first step."""

    def run(model: Any) -> torch.Tensor:
        model._diffusers_hook.reset_stateful_hooks()
        return (call if isinstance(model, WanTransformer3DModel) else call_hunyuan)(model)

    return run


@pytest.fixture
def full(transformer: Any, tmp_path: Path) -> Path:
    """A transformer's folder in full precision, in several shards."""
    transformer.save_pretrained(str(tmp_path / "full"), max_shard_size="1MB")
    return tmp_path / "full"


@pytest.fixture
def saved(transformer: Any, tmp_path: Path) -> Path:
    return save(quantize(transformer, RECIPE), tmp_path / "quantized")


def _same(left: Any, right: Any) -> None:
    """Parameters, and buffers that are not saved, bit for bit."""
    for tensors in ("named_parameters", "named_buffers"):
        a, b = dict(getattr(left, tensors)()), dict(getattr(right, tensors)())
        assert a.keys() == b.keys()
        for name, tensor in a.items():
            assert b[name].dtype == tensor.dtype, name
            assert torch.equal(b[name], tensor), name


def _codes(model: Any) -> dict[str, torch.Tensor]:
    names = ("qweight", "scale", "zero")
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, QuantizedLinear)]
    return {f"{name}.{part}": getattr(layer, part).clone() for name, layer in layers for part in names}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_on_load_is_what_quantize_does(
    family: str, dtype: Any, request: pytest.FixtureRequest, tmp_path: Path, forward: Call
) -> None:
    model = request.getfixturevalue(family)
    model.save_pretrained(str(tmp_path / "full"), max_shard_size="1MB")
    on_load = type(model).from_pretrained(str(tmp_path / "full"), quantization_config=CONFIG, torch_dtype=dtype)
    afterwards = quantize(type(model).from_pretrained(str(tmp_path / "full"), torch_dtype=dtype), RECIPE)
    _same(on_load, afterwards)
    assert not on_load.training
    if dtype is None:
        assert torch.equal(forward(on_load), forward(quantize(model, RECIPE)))
        assert len(trace(on_load)) == 1


def test_weights_are_read_one_at_a_time(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    original = linear.encode_weight

    def watched(weight: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        assert not [ref for ref in seen if ref() is not None]
        seen.append(weakref.ref(weight))
        return original(weight, *args, **kwargs)

    monkeypatch.setattr(linear, "encode_weight", watched)
    model = WanTransformer3DModel.from_pretrained(str(full), quantization_config=CONFIG)
    assert len(seen) == len([m for m in model.modules() if isinstance(m, QuantizedLinear)])


@pytest.mark.parametrize("family", FAMILIES)
def test_reload_is_bit_identical_by_every_way(
    family: str, request: pytest.FixtureRequest, tmp_path: Path, forward: Call
) -> None:
    model = quantize(request.getfixturevalue(family), RECIPE)
    model.proj_out.bias.data = model.proj_out.bias.data.to(torch.bfloat16).float()
    model.save_pretrained(str(tmp_path / "theirs"), max_shard_size="100KB")
    save(model, tmp_path / "ours")
    for folder in (tmp_path / "theirs", tmp_path / "ours"):
        for again in (type(model).from_pretrained(str(folder)), load(folder)):
            _same(again, model)
            assert torch.equal(forward(again), forward(model))
    again.save_pretrained(str(tmp_path / "twice"))
    config = json.loads((tmp_path / "twice/config.json").read_text())
    assert config["quantization_config"] == CONFIG.to_dict()
    assert not load(tmp_path / "twice").training


def test_as_stored_or_as_asked_but_codes_never_change(transformer: Any, tmp_path: Path) -> None:
    quantize(transformer, RECIPE)
    for name in ("patch_embedding", "proj_out", "condition_embedder.time_embedder"):
        transformer.get_submodule(name).to(torch.bfloat16)
    transformer.save_pretrained(str(tmp_path / "q"))
    _same(WanTransformer3DModel.from_pretrained(str(tmp_path / "q")), transformer)
    half = WanTransformer3DModel.from_pretrained(str(tmp_path / "q"), torch_dtype=torch.float16)
    for name, tensor in half.state_dict().items():
        kept = any(part in half._keep_in_fp32_modules for part in name.split("."))
        code = {"qweight": torch.uint8, "scale": torch.float32, "zero": torch.int16}.get(name.rsplit(".")[-1])
        assert tensor.dtype == (code or (torch.float32 if kept else torch.float16)), name
    before, after = _codes(transformer), _codes(half)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_what_was_read_does_not_depend_on_the_file(saved: Path, forward: Call) -> None:
    model = WanTransformer3DModel.from_pretrained(str(saved))
    before = forward(model)
    for file in saved.glob("*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(forward(model), before)


def _edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q.update(format=2), "expected format 1, of its recipe, got 2"),
        (lambda q: q.pop("recipe"), "expected quant_method, format and recipe"),
        (lambda q: q.update(later="x"), "got format, later, quant_method, recipe"),
        (lambda q: q["recipe"].pop("weight"), "the fields of a recipe"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(saved: Path, change: Any, message: str) -> None:
    _edit(saved, change)
    with pytest.raises(DvdqError, match=message):
        WanTransformer3DModel.from_pretrained(str(saved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.0.attn1.to_q.zero"), r"tensor blocks\.0\.attn1\.to_q\.zero, got 1 missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "no other tensors, got extra"),
        (lambda t: t.update({"proj_out.bias": torch.zeros(3)}), r"proj_out\.bias: expected .*\[32\], got .*\[3\]"),
        (
            lambda t: t.update({"blocks.0.attn1.to_q.scale": t["blocks.0.attn1.to_q.scale"].half()}),
            r"to_q\.scale: expected torch\.float32 .* got torch\.float16",
        ),
        (
            lambda t: t.update({"proj_out.bias": t["proj_out.bias"].to(torch.float8_e4m3fn)}),
            r"proj_out\.bias: expected torch\.float32 .* got torch\.float8",
        ),
    ],
)
def test_tensors_are_checked_both_ways(saved: Path, change: Any, message: str) -> None:
    file = saved / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    (saved / "SHA256SUMS").unlink()
    with pytest.raises(DvdqError, match=message):
        WanTransformer3DModel.from_pretrained(str(saved))


def test_checksums_are_checked_where_they_are(saved: Path) -> None:
    file = saved / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DvdqError, match="expected SHA-256"):
        WanTransformer3DModel.from_pretrained(str(saved))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "gptq"}, "expected one of minmax"),
        ({"bits": "W3"}, "bits: expected W"),
        ({"recipe": RECIPE, "bits": "W4A4"}, "bits: expected a recipe's name beside it"),
        ({"bits": "W4A8", "delta": 0.1}, "delta: expected a schedule that switches"),
        (
            {"modules_to_not_convert": ["proj_out"]},
            "last_high, finish, channel_maxima, moments and backend, got modules_to_not_convert",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        DVDQuantConfig(**arguments)


def test_a_delta_replaces_that_of_the_recipe() -> None:
    config = DVDQuantConfig("dvd-quant", "W4A6", delta=0.5)
    assert config.recipe.schedule.delta == 0.5
    assert DVDQuantConfig.from_dict(json.loads(json.dumps(config.to_dict()))).recipe == config.recipe


def test_steps_that_run_high_need_no_schedule_by_hand() -> None:
    config = DVDQuantConfig("dvd-quant", "W4A4", last_high=2)
    assert config.recipe.schedule == BitSchedule("low", low=4, high=8, last_high=2)
    assert DVDQuantConfig(config.recipe, first_high=1).recipe.schedule == BitSchedule("low", first_high=1, last_high=2)
    assert DVDQuantConfig.from_dict(json.loads(json.dumps(config.to_dict()))).recipe == config.recipe


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"torch_dtype": torch.float64}, "dtype: expected torch.float32 or torch.bfloat16 or torch.float16"),
        ({"dtype": torch.int8}, "dtype: expected .* got torch.int8"),
        ({"quantization_config": DVDQuantConfig(backend="fpga")}, "backend: expected auto"),
        ({"quantization_config": DVDQuantConfig("smoothquant")}, "smoothquant: expected calibration of its"),
    ],
)
def test_what_a_model_refuses_on_load_is_named(full: Path, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        WanTransformer3DModel.from_pretrained(str(full), **{"quantization_config": CONFIG, **kwargs})


def test_a_model_without_a_family_is_named(pipeline: Any, tmp_path: Path) -> None:
    pipeline.vae.save_pretrained(str(tmp_path / "vae"))
    with pytest.raises(DvdqError, match=r"covered \(WanTransformer3DModel, .*got AutoencoderKLWan"):
        AutoencoderKLWan.from_pretrained(str(tmp_path / "vae"), quantization_config=CONFIG)


def test_a_full_checkpoint_that_lacks_a_tensor_or_is_not_finite_is_named(transformer: Any, tmp_path: Path) -> None:
    transformer.blocks[1].attn2.to_k.weight.data[3, 5] = float("nan")
    transformer.save_pretrained(str(tmp_path / "full"))
    with pytest.raises(DvdqError, match=r"blocks\.1\.attn2\.to_k: expected finite weights"):
        WanTransformer3DModel.from_pretrained(str(tmp_path / "full"), quantization_config=CONFIG)
    file = tmp_path / "full/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["blocks.1.attn2.to_k.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(DvdqError, match=r"tensor blocks\.1\.attn2\.to_k\.weight, got 1 missing"):
        WanTransformer3DModel.from_pretrained(str(tmp_path / "full"), quantization_config=CONFIG)


def test_a_quantized_folder_keeps_its_own_recipe_and_says_so(saved: Path) -> None:
    with pytest.warns(UserWarning, match="already has a `quantization_config`"):
        model = WanTransformer3DModel.from_pretrained(str(saved), quantization_config=DVDQuantConfig("minmax"))
    assert model.config.quantization_config.recipe == RECIPE
    with pytest.raises(DvdqError, match="quantized already"):
        quantize(model, RECIPE)


def test_layerwise_casting_stores_float_layers_small_and_leaves_codes(saved: Path, forward: Call) -> None:
    small, model = (WanTransformer3DModel.from_pretrained(str(saved)) for _ in range(2))
    small.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32, skip_modules_pattern=("blocks",))
    codes = _codes(model)
    assert all(torch.equal(codes[name], code) for name, code in _codes(small).items())
    stored = {
        m for m in small.modules() if next(m.parameters(recurse=False), torch.empty(0)).dtype == torch.float8_e4m3fn
    }
    assert small.proj_out in stored
    for name, module in model.named_modules():
        if small.get_submodule(name) in stored:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    assert torch.equal(forward(small), forward(model))


PARTS = ("rope", "patch_embedding", "condition_embedder", "norm_out", "proj_out", "scale_shift_table")
BLOCKS_ON_DISK = {**dict.fromkeys(PARTS, "cpu"), "blocks": "disk"}


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules")  # a parameter
@pytest.mark.parametrize("device_map", ["cpu", "balanced", "auto", {"": "cpu"}, {"": "disk"}, BLOCKS_ON_DISK])
@pytest.mark.parametrize("stored", ["full", "saved"])
def test_device_maps(
    device_map: Any, stored: str, request: pytest.FixtureRequest, tmp_path: Path, transformer: Any, forward: Call
) -> None:
    folder = request.getfixturevalue(stored)
    if stored == "full":
        quantize(transformer, RECIPE)
    config = {"quantization_config": CONFIG} if stored == "full" else {}
    model = WanTransformer3DModel.from_pretrained(
        str(folder),
        device_map=device_map,
        offload_folder=str(tmp_path / "offload"),
        torch_dtype=torch.float32,
        **config,
    )
    assert torch.equal(forward(model), forward(transformer))
    on_disk = isinstance(device_map, dict) and "disk" in device_map.values()
    assert (model.blocks[0].attn1.to_q.qweight.device.type == "meta") == on_disk
    if on_disk:
        with pytest.raises(DvdqError, match="expected a tensor in memory, got one offloaded"):
            model.save_pretrained(str(tmp_path / "again"))


def test_a_device_map_is_made_from_the_quantized_sizes(full: Path, saved: Path, tmp_path: Path) -> None:
    nbytes = 1.2 * sum(
        file.stat().st_size for file in saved.glob("*.safetensors")
    )  # buffers that are not saved: the rest
    assert nbytes < sum(file.stat().st_size for file in full.glob("*.safetensors")) / 2
    for folder, config in ((full, {"quantization_config": CONFIG}), (saved, {})):
        model = WanTransformer3DModel.from_pretrained(
            str(folder),
            device_map="auto",
            max_memory={"cpu": int(nbytes)},
            offload_folder=str(tmp_path / "x"),
            **config,
        )
        assert {str(device) for device in model.hf_device_map.values()} == {"cpu"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "how",
    [{"offload_type": "block_level", "num_blocks_per_group": 1}, {"offload_type": "leaf_level"}],
    ids=["blocks", "leaves"],
)
def test_group_offload(family: str, how: dict[str, Any], request: pytest.FixtureRequest, forward: Call) -> None:
    model = quantize(request.getfixturevalue(family), RECIPE)
    before = forward(model)
    model.enable_group_offload(onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), **how)
    assert torch.equal(forward(model), before)
    assert torch.equal(forward(model), before)
    assert [decision.bits for decision in trace(model)] == [8]


def test_group_offload_through_the_disk(transformer: Any, tmp_path: Path, forward: Call) -> None:
    model = quantize(transformer, RECIPE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cpu = torch.device("cpu")
    model.enable_group_offload(cpu, cpu, offload_type="leaf_level", offload_to_disk_path=str(tmp_path / "groups"))
    assert forward(model).isfinite().all()
    for module in model.modules():
        hook = module._diffusers_hook.get_hook("group_offloading") if hasattr(module, "_diffusers_hook") else None
        if hook is not None:
            hook.group.onload_()
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_model_offload_is_the_hook_that_pipelines_use(transformer: Any, forward: Call) -> None:
    before = forward(quantize(transformer, RECIPE))
    model, hook = cpu_offload_with_hook(transformer, torch.device("cpu"))
    assert torch.equal(forward(model), before)
    hook.offload()
    assert torch.equal(forward(model), before)


def test_sequential_offload_moves_codes_too(hunyuan_transformer: Any, forward: Call) -> None:
    before = forward(quantize(hunyuan_transformer, RECIPE))
    # As diffusers calls it for a model whose top level has no parameters.
    cpu_offload(hunyuan_transformer, torch.device("cpu"), offload_buffers=False)
    layer = hunyuan_transformer.transformer_blocks[0].attn.to_q
    assert {tensor.device.type for tensor in (layer.qweight, layer.scale, layer.zero, layer.bias)} == {"meta"}
    assert torch.equal(forward(hunyuan_transformer), before)
    assert layer.qweight.device.type == "meta"


def test_pipelines_open_by_diffusers_alone(
    pipeline: Any, tmp_path: Path, generate: Callable[..., torch.Tensor]
) -> None:
    quantize(pipeline.transformer, RECIPE)
    pipeline.save_pretrained(str(tmp_path / "q"))
    expected = generate(pipeline, 3)
    for opener in (WanPipeline, DiffusionPipeline):
        again = opener.from_pretrained(str(tmp_path / "q"))
        again.set_progress_bar_config(disable=True)
        assert torch.equal(generate(again, 3), expected)
        assert trace(again.transformer) == trace(pipeline.transformer)


def test_both_experts_of_a_pipeline_are_quantized_on_load(pipeline: Any, transformer: Any, tmp_path: Path) -> None:
    pipeline.register_modules(transformer_2=transformer)
    pipeline.register_to_config(boundary_ratio=0.5)
    pipeline.save_pretrained(str(tmp_path / "two"))
    configs = {"transformer": CONFIG, "transformer_2": DVDQuantConfig("minmax", "W4A8")}
    loaded = DiffusionPipeline.from_pretrained(
        str(tmp_path / "two"), quantization_config=PipelineQuantizationConfig(quant_mapping=configs)
    )
    for name, config in configs.items():
        assert getattr(loaded, name).config.quantization_config.recipe == config.recipe
        assert _codes(getattr(loaded, name))
    loaded.save_pretrained(str(tmp_path / "again"))
    again = WanPipeline.from_pretrained(str(tmp_path / "again"))
    for name in configs:
        _same(getattr(again, name), getattr(loaded, name))


def test_a_single_file_is_quantized_on_load(transformer: Any, tmp_path: Path) -> None:
    transformer.save_pretrained(str(tmp_path / "full"))
    save_file(transformer.state_dict(), tmp_path / "one.safetensors")
    model = WanTransformer3DModel.from_single_file(
        str(tmp_path / "one.safetensors"), config=str(tmp_path / "full"), quantization_config=CONFIG
    )
    _same(model, quantize(transformer, RECIPE))


def test_nothing_is_pickled(saved: Path, tmp_path: Path) -> None:
    model = WanTransformer3DModel.from_pretrained(str(saved))
    with pytest.raises(DvdqError, match="safe_serialization: expected True"):
        model.save_pretrained(str(tmp_path / "pickle"), safe_serialization=False)
    assert not list((tmp_path / "pickle").glob("*.bin"))


WITHOUT_US = """
import sys
for name in ("dvdq_models", "dvdq_kernels", "dvdq_reference"):
    sys.modules[name] = None
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1] + "/diffusion_pytorch_model.safetensors")
print(tensors["blocks.0.attn1.to_q.qweight"].dtype, tensors["blocks.0.attn1.to_q.qweight"].shape)
from diffusers import WanTransformer3DModel
try:
    WanTransformer3DModel.from_pretrained(sys.argv[1])
except ValueError as error:
    print(error)
"""


def test_without_this_package_the_file_opens_and_diffusers_says_what_is_missing(saved: Path) -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_US, str(saved)], capture_output=True, text=True, check=True)
    shape, *error = result.stdout.splitlines()
    assert shape == "uint8 (128, 64)"
    assert error[0].startswith("Unknown quantization type, got dvd-quant - supported types are:")
