"""Files for ComfyUI: original names, codes of its basis, one clear error for what cannot be written."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, quantize, save
from dvdq_models.calibration import Calibration
from dvdq_models.checkpoint.checksums import SUMS
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import LazyTensor, open_file
from dvdq_models.cli import app
from dvdq_models.comfyui import export_checkpoint
from dvdq_models.comfyui.formats import SignedRows
from dvdq_models.comfyui.names import names_of, original_tensors
from dvdq_models.comfyui.plan import plan_file
from dvdq_models.families import family_of
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.streaming import quantize_checkpoint, tasks
from dvdq_models.streaming.original import convert
from dvdq_models.streaming.source import TransformerSource

ALL_PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
PUBLISHED = {
    model["name"]: model["config"]
    for model in ALL_PUBLISHED
    if model["config"]["_class_name"]
    in ("WanTransformer3DModel", "WanVACETransformer3DModel", "HunyuanVideoTransformer3DModel")
}

RECIPE = Recipe.named("convrot", "W4A4")
FAST: dict[str, Any] = {"format": "int8_tensorwise", "backend": "torch"}
"""Where it does not matter what is written."""


@pytest.fixture
def folder(transformer: Any, tmp_path: Path) -> Path:
    transformer.to(torch.bfloat16).save_pretrained(tmp_path / "full")
    return tmp_path / "full"


@pytest.mark.parametrize("name", PUBLISHED)
def test_original_names_are_what_diffusers_converts_from(name: str) -> None:
    """Of every published model: its tensors under our names come back as themselves, in their shapes."""
    config = PUBLISHED[name] | {"num_layers": 2, "num_single_layers": 2}  # blocks are alike
    empty = empty_transformer(config | ({"vace_layers": [0, 1]} if "vace_layers" in config else {}))
    types = {n: TensorType(tuple(t.shape), torch.bfloat16) for n, t in empty.state_dict().items()}
    lazy = {n: LazyTensor(n, kind, lambda: torch.empty(0)) for n, kind in types.items()}
    originals = original_tensors(list(lazy), names_of(config["_class_name"], name), name)
    made = {o.name: LazyTensor(o.name, o.of(lazy).type, lambda: torch.empty(0)) for o in originals}
    # What diffusers does not convert, and ComfyUI reads (comfy/model_detection.py): of a first and a last frame.
    frames = {"condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos"}
    back = {n: tensor.type for n, tensor in convert(config["_class_name"], made).items()}
    assert back == {frames.get(n, n): kind for n, kind in types.items()}


def test_what_stands_in_one_tensor_stands_in_its_order(
    tmp_path: Path, hunyuan_tensors: dict[str, torch.Tensor]
) -> None:
    """From the original to diffusers by its converter, and by our table to the original: every bit."""
    tensors = hunyuan_tensors
    save_file(tensors, tmp_path / "hunyuan.safetensors")
    converted = convert("HunyuanVideoTransformer3DModel", open_file("test", tmp_path / "hunyuan.safetensors"))
    table = names_of("HunyuanVideoTransformer3DModel", "test")
    back = {o.name: o.of(converted).read() for o in original_tensors(list(converted), table, "test")}
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_hunyuan_video_15_has_the_names_that_comfyui_tells_it_by() -> None:
    """As comfy/model_detection.py reads them, and one linear for queries, keys and values."""
    config = {"_class_name": "HunyuanVideo15Transformer3DModel", "num_layers": 2, "num_refiner_layers": 1}
    names = list(empty_transformer(config).state_dict())
    found = {o.name for o in original_tensors(names, names_of(config["_class_name"], "test"), "test")}
    assert found > {
        "txt_in.individual_token_refiner.blocks.0.norm1.weight",
        "txt_in.input_embedder.weight",
        "img_in.proj.weight",
        "final_layer.linear.weight",
        "byt5_in.fc1.weight",
        "cond_type_embedding.weight",
        "vision_in.proj.0.weight",
        "double_blocks.1.img_attn_qkv.weight",
        "double_blocks.1.txt_attn_qkv.bias",
    }
    assert not any(name.startswith(("single_blocks.", "vector_in.", "guidance_in.")) for name in found)


def test_a_file_holds_the_model(folder: Path, tmp_path: Path, wan_name: Callable[[str], str]) -> None:
    """Everything that is no quantized linear as it was, under its original name; what a linear needs, and its JSON."""
    report = export_checkpoint(folder, tmp_path / "wan.safetensors")
    source, file = load_file(folder / f"{WEIGHTS}.safetensors"), load_file(tmp_path / "wan.safetensors")
    layers = {name.removesuffix(".comfy_quant") for name in file if name.endswith(".comfy_quant")}
    assert len(layers) == 20 == sum(report.formats.values())
    for name, tensor in source.items():
        theirs = wan_name(name)
        if theirs.removesuffix(".weight") not in layers:
            assert torch.equal(file.pop(theirs).to(tensor.dtype), tensor), name
            continue
        layer = theirs.removesuffix(".weight")
        config = json.loads(file.pop(f"{layer}.comfy_quant").numpy().tobytes())
        assert config == {"format": "convrot_w4a4", "convrot_groupsize": 64}
        codes, scale = file.pop(theirs), file.pop(f"{layer}.weight_scale")
        assert (codes.shape, codes.dtype) == ((tensor.shape[0], tensor.shape[1] // 2), torch.int8)
        assert (scale.shape, scale.dtype) == ((tensor.shape[0],), torch.float32)
    assert not file
    assert report.bytes_written == sum(t.nbytes for t in load_file(tmp_path / "wan.safetensors").values())
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["full", "wan.safetensors"]


def test_modules_kept_in_float32_stay_so_and_the_rest_is_of_sixteen_bits(transformer: Any, tmp_path: Path) -> None:
    transformer.save_pretrained(tmp_path / "full")
    export_checkpoint(tmp_path / "full", tmp_path / "wan.safetensors", format="int8_tensorwise")
    file = load_file(tmp_path / "wan.safetensors")
    assert file["blocks.0.modulation"].dtype == file["time_embedding.0.weight"].dtype == torch.float32
    assert file["patch_embedding.weight"].dtype == file["head.head.weight"].dtype == torch.bfloat16
    assert file["blocks.0.self_attn.q.weight_scale"].shape == (128, 1)


def test_hunyuan_video_joins_and_weighs_its_modulation(hunyuan_transformer: Any, tmp_path: Path) -> None:
    hunyuan_transformer.save_pretrained(tmp_path / "full")
    report = export_checkpoint(tmp_path / "full", tmp_path / "h.safetensors", linear_dtype="int8")
    file = load_file(tmp_path / "h.safetensors")
    assert report.formats == {"awq_w4a16": 3, "convrot_w4a4": 10}
    joined = file["single_blocks.0.linear1.weight"]
    assert joined.shape == (3 * 128 + 384, 64)
    block = hunyuan_transformer.single_transformer_blocks[0]
    parts = [block.attn.to_q, block.attn.to_k, block.attn.to_v, block.proj_mlp]
    whole = SignedRows(4, 64).encode(torch.cat([part.weight for part in parts]))
    assert torch.equal(joined, whole["weight"])
    config = json.loads(file["single_blocks.0.linear1.comfy_quant"].numpy().tobytes())
    assert config["linear_dtype"] == "int8"


def test_ends_of_a_stack_get_eight_bits(folder: Path, tmp_path: Path) -> None:
    report = export_checkpoint(folder, tmp_path / "wan.safetensors", ends=1)  # of two blocks
    assert report.formats == {"int8_tensorwise": 20}


def test_an_original_checkpoint_gives_the_same_file(
    folder: Path, tmp_path: Path, wan_name: Callable[[str], str]
) -> None:
    tensors = load_file(folder / f"{WEIGHTS}.safetensors")
    save_file({wan_name(name): t for name, t in tensors.items()}, tmp_path / "original.safetensors")
    config = folder / "config.json"
    export_checkpoint(tmp_path / "original.safetensors", tmp_path / "a.safetensors", config=config, **FAST)
    export_checkpoint(folder, tmp_path / "b.safetensors", **FAST)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_size_of_a_published_model_is_that_of_the_page() -> None:
    config = next(model["config"] for model in ALL_PUBLISHED if model["name"] == "HunyuanVideo")
    types = {n: TensorType(tuple(t.shape), torch.bfloat16) for n, t in empty_transformer(config).state_dict().items()}
    lazy = {n: LazyTensor(n, kind, lambda: torch.empty(0)) for n, kind in types.items()}
    source = TransformerSource("", Path("HunyuanVideo"), config, lazy, ())
    plan = plan_file(source, "convrot_w4a4", device=torch.device("cpu"))
    assert f"{plan.nbytes / 1e9:.1f}" == "7.2"


def test_two_experts_are_two_files_in_a_folder(folder: Path, tmp_path: Path) -> None:
    for expert in ("high_noise_model", "low_noise_model"):
        (tmp_path / "both" / expert).mkdir(parents=True)
        for file in folder.iterdir():
            (tmp_path / "both" / expert / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DvdqError, match=r"^export: .*one.safetensors: expected a folder, for the files of 2 transfo"):
        export_checkpoint(tmp_path / "both", tmp_path / "one.safetensors")
    report = export_checkpoint(tmp_path / "both", tmp_path / "wan22", **FAST)
    names = [file.name for file in report.files]
    assert names == ["wan22_high_noise_model.safetensors", "wan22_low_noise_model.safetensors"]
    assert sorted(file.name for file in (tmp_path / "wan22").iterdir()) == names


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    folder: Path, transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.safetensors"
    export_checkpoint(folder, whole, **FAST)
    monkeypatch.setattr(tasks, "COMMIT_BYTES", 50_000)
    seen: list[str] = []

    def stop(name: str, done: int, total: int) -> None:
        seen.append(name)
        if len(seen) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST, progress=stop)
    assert not (tmp_path / "wan.safetensors").exists()
    for other in ({"ends": 1}, {"calibration": calibration_of(transformer)}):
        with pytest.raises(DvdqError, match=r"expected the work that was begun there, .* got another choice"):
            export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST, **other)
    report = export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST)
    assert report.resumed_bytes > 0
    assert (tmp_path / "wan.safetensors").read_bytes() == whole.read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["full", "wan.safetensors", "whole.safetensors"]


def test_one_that_died_between_its_last_two_steps_ends(folder: Path, tmp_path: Path) -> None:
    """The file has its name, and what was beside it is still there."""

    def killed(*_: Any, **__: Any) -> None:
        if (tmp_path / "wan.safetensors").exists():
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvdq_models.files.workspace.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST)
    written = (tmp_path / "wan.safetensors").read_bytes()
    export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST)
    assert (tmp_path / "wan.safetensors").read_bytes() == written
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["full", "wan.safetensors"]
    with pytest.raises(DvdqError, match="expected a file that does not exist yet, got one that does"):
        export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST)


def test_what_cannot_be_written_is_one_error_and_nothing_on_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown family, a quantized source, NaN, an argument, no space."""

    def refused(source: Path, match: str, **options: Any) -> None:
        with pytest.raises(DvdqError, match=match) as caught:
            export_checkpoint(source, tmp_path / "x.safetensors", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "x.safetensors").exists()

    refused(
        folder,
        "export: format: expected convrot_w4a4 or asym_w4a8_int8 or int8_tensorwise, got 'nvfp4'",
        format="nvfp4",
    )
    refused(folder, "expected convrot_w4a4 beside it", format="int8_tensorwise", linear_dtype="int8")
    refused(folder, "export: ends: expected a number of blocks, 0 or more, got -1", ends=-1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "SkyReelsV2Transformer3DModel"}))
    refused(folder, "expected a transformer that ComfyUI runs .*WanVACE.*, got SkyReelsV2Transformer3DModel")
    (folder / "config.json").write_text(json.dumps(config))
    assert not list(tmp_path.glob(".*"))
    with monkeypatch.context() as patch:
        patch.setattr("dvdq_models.files.workspace.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        refused(folder, r"^export: .*expected [\d,]+ bytes free, got 1,000")
    tensors = load_file(folder / f"{WEIGHTS}.safetensors")
    tensors["blocks.1.attn1.to_q.weight"][3, 5] = torch.nan
    save_file(tensors, folder / f"{WEIGHTS}.safetensors")
    refused(folder, r"^export: .*blocks\.1\.attn1\.to_q\.weight: expected finite weights, got NaN or Inf", restart=True)


def test_what_is_quantized_is_refused(folder: Path, transformer: Any, tmp_path: Path) -> None:
    """By us with other codes, and in this very format."""
    save(quantize(copy.deepcopy(transformer), Recipe.named("minmax")), tmp_path / "ours")
    expected = r"^export: .*ours: expected codes of the recipe convrot, .* got minmax without the grid bgr-symmetric, "
    with pytest.raises(DvdqError, match=expected):
        export_checkpoint(tmp_path / "ours", tmp_path / "x.safetensors")
    export_checkpoint(folder, tmp_path / "theirs.safetensors", **FAST)
    with pytest.raises(DvdqError, match=r"export: .*expected weights in full precision, got a companion of quantized"):
        export_checkpoint(tmp_path / "theirs.safetensors", tmp_path / "x.safetensors", config=folder / "config.json")


@pytest.fixture
def wide(request: pytest.FixtureRequest) -> Any:
    """Models whose widths 256 divides, as the recipe ``convrot`` wants them; one has joined and weight-only linears."""
    torch.manual_seed(0)
    if request.param == "wan":
        sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 256, "num_layers": 1, "text_dim": 32}
        return diffusers.WanTransformer3DModel(**sizes, freq_dim=32, in_channels=4, out_channels=4).eval()
    sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "mlp_ratio": 1.0, "text_embed_dim": 32}
    layers = {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "pooled_projection_dim": 32}
    made = diffusers.HunyuanVideoTransformer3DModel(**sizes, **layers, in_channels=4, out_channels=4)
    return made.eval()


def calibration_of(model: Any) -> Calibration:
    """Second moments of what every linear that is quantized reads, as if of correlated activations."""
    seen: dict[int, torch.Tensor] = {}
    moments = {}
    for name, treatment in family_of(model).treatments(model).items():
        size = model.get_submodule(name).in_features
        if size not in seen:
            x = torch.randn(300, 24) @ torch.randn(24, size) + 0.2 * torch.randn(300, size)
            seen[size] = x.T @ x
        if treatment != "keep":
            moments[f"transformer.{name}"] = seen[size]
    return Calibration({}, ("a cat",), 1, 1.0, moments)


@pytest.mark.parametrize("fed", [False, True], ids=["nearest", "feedback"])
@pytest.mark.parametrize("wide", ["wan", "hunyuan-video"], indirect=True)
def test_a_folder_of_the_recipe_gives_the_codes_of_full_precision(wide: Any, fed: bool, tmp_path: Path) -> None:
    """Without the source, byte for byte; weight-only linears keep their row's grid, with activations of 8 bits."""
    wide.to(torch.bfloat16).save_pretrained(tmp_path / "full")
    treatments = family_of(wide).treatments(wide)
    source = wide.state_dict()
    calibration = calibration_of(wide) if fed else None
    rule = dataclasses.replace(RECIPE.weight, rounding="feedback" if fed else "nearest")
    recipe = dataclasses.replace(RECIPE, weight=rule)
    quantize_checkpoint(tmp_path / "full", tmp_path / "ours", recipe, calibration=calibration)
    export_checkpoint(tmp_path / "full", tmp_path / "full.safetensors", calibration=calibration)
    report = export_checkpoint(tmp_path / "ours", tmp_path / "ours.safetensors")
    expected, found = (load_file(tmp_path / f"{name}.safetensors") for name in ("full", "ours"))
    alone = {}
    for original in original_tensors(list(source), names_of(type(wide).__name__, "test"), "test"):
        layer = original.name.removesuffix(".weight")
        if treatments.get(original.parts[0].removesuffix(".weight")) == "weight-only" and layer != original.name:
            seen = None if calibration is None else calibration.moments[f"transformer.{original.parts[0][:-7]}"]
            alone[layer] = SignedRows(4, 256).encode(source[original.parts[0]], moments=seen)
    for name in found.keys() | expected.keys():
        if name.rpartition(".")[0] not in alone:
            assert torch.equal(found[name], expected[name]), name
    for layer, tensors in alone.items():
        said = json.loads(found[f"{layer}.comfy_quant"].numpy().tobytes())
        assert said == {"format": "convrot_w4a4", "convrot_groupsize": 256, "linear_dtype": "int8"}
        for part, tensor in tensors.items():
            assert torch.equal(found[f"{layer}.{part}"], tensor), layer
    assert len(alone) == (3 if "Hunyuan" in type(wide).__name__ else 0)
    assert report.formats == {"convrot_w4a4": sum(name.endswith(".comfy_quant") for name in expected)}


def test_a_calibration_that_does_not_fit_says_why(folder: Path, transformer: Any, tmp_path: Path) -> None:
    calibration = calibration_of(transformer)
    name = next(iter(calibration.moments))
    without = dataclasses.replace(calibration, moments={**calibration.moments})
    del without.moments[name]
    maxima = dataclasses.replace(calibration, maxima={name: torch.ones(1)}, moments={})
    layer = re.escape(name.removeprefix("transformer."))
    for given, message in (
        (without, rf"export: {layer}: expected second moments \[\d+, \d+\], got None"),
        (maxima, "expected its second moments, got those of"),
    ):
        with pytest.raises(DvdqError, match=message):
            export_checkpoint(folder, tmp_path / "x.safetensors", calibration=given, **FAST)
    assert not list(tmp_path.glob("*x*"))


@pytest.mark.parametrize("wide", ["wan"], indirect=True)
def test_a_folder_that_does_not_fit_says_why(wide: Any, tmp_path: Path) -> None:
    calibration = calibration_of(wide)
    save(quantize(wide, RECIPE), tmp_path / "ours")
    for options in ({"ends": 1}, {"format": "asym_w4a8_int8"}):
        with pytest.raises(DvdqError, match="other formats are made from full precision, got"):
            export_checkpoint(tmp_path / "ours", tmp_path / "x.safetensors", **options)
    with pytest.raises(DvdqError, match="expected a source in full precision, whose codes are still to be rounded"):
        export_checkpoint(tmp_path / "ours", tmp_path / "x.safetensors", calibration=calibration)
    tensors = load_file(tmp_path / "ours" / f"{WEIGHTS}.safetensors")
    broken = {
        "scale": tensors["blocks.0.attn1.to_q.scale"].half(),
        "qweight": tensors["blocks.0.attn1.to_q.qweight"][1:],
    }
    (tmp_path / "ours" / SUMS).unlink()
    for part, tensor in broken.items():
        save_file(tensors | {f"blocks.0.attn1.to_q.{part}": tensor}, tmp_path / "ours" / f"{WEIGHTS}.safetensors")
        with pytest.raises(DvdqError, match=rf"export: .*blocks\.0\.attn1\.to_q\.{part}.*: expected .*, got"):
            export_checkpoint(tmp_path / "ours", tmp_path / "x.safetensors")
    assert not list(tmp_path.glob("*x*"))
    edge = {"blocks.0.attn1.to_q.qweight": torch.zeros_like(tensors["blocks.0.attn1.to_q.qweight"])}
    save_file(tensors | edge, tmp_path / "ours" / f"{WEIGHTS}.safetensors")
    with pytest.raises(DvdqError, match=r"export: .*to_q\.qweight: expected codes from -7 to 7, got -8"):
        export_checkpoint(tmp_path / "ours", tmp_path / "x.safetensors")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "torchao"}
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        DvdqError, match=r"^export: .*config\.json.*: expected a checkpoint quantized by dvd-quant, got torchao"
    ):
        export_checkpoint(tmp_path / "ours", tmp_path / "x.safetensors")


def test_linears_that_are_joined_must_be_treated_alike(hunyuan_transformer: Any, tmp_path: Path) -> None:
    """As those of a family of another package might not be."""
    hunyuan_transformer.save_pretrained(tmp_path / "full")
    family = SimpleNamespace(treatments=lambda model: {"transformer_blocks.0.attn.to_q": "quantize"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvdq_models.comfyui.plan.family_of", lambda _: family)
        expected = (
            r"double_blocks\.0\.img_attn_qkv\.weight: expected linears that are treated alike, got keep, quantize"
        )
        with pytest.raises(DvdqError, match=expected):
            export_checkpoint(tmp_path / "full", tmp_path / "x.safetensors")


def test_the_command_and_what_inspect_says_of_its_file(folder: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "wan.safetensors")
    result = CliRunner().invoke(app, ["export", str(folder), file, "--for", "comfyui", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["formats"] == {"convrot_w4a4": 20}
    result = CliRunner().invoke(app, ["inspect", file, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["bytes"] == sum(t.nbytes for t in load_file(file).values())
    layer = next(layer for layer in found["layers"] if layer["name"] == "blocks.1.ffn.2")
    assert layer["stored"] == [128, 192]
    assert layer["config"] == {"convrot_groupsize": 64}
    assert layer["bytes"] == 128 * 192 + 4 * 128 + len('{"format": "convrot_w4a4", "convrot_groupsize": 64}')
    for arguments in (["inspect", file], ["inspect", file, "--layers"]):
        result = CliRunner().invoke(app, arguments, terminal_width=200)
        assert re.search(
            "convrot_w4a4 +│ 20" if len(arguments) == 2 else r"blocks\.1\.ffn\.2.*128 × 192", result.output
        )
    result = CliRunner().invoke(app, ["export", str(folder), file, "--for", "comfyui"])
    assert result.exit_code == 2 or isinstance(result.exception, DvdqError)


@pytest.mark.parametrize("config", [b"", b"[]", b'{"convrot": true}', b"\xff", b"[" * 70_000])
def test_a_layer_that_does_not_say_its_format_is_named(config: bytes, tmp_path: Path) -> None:
    mark = torch.frombuffer(bytearray(config), dtype=torch.uint8) if config else torch.empty(0, dtype=torch.uint8)
    save_file({"a.weight": torch.zeros(2, 2), "a.comfy_quant": mark}, tmp_path / "x.safetensors")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "x.safetensors")])
    assert isinstance(result.exception, DvdqError)
    assert "a.comfy_quant: expected JSON with a format" in str(result.exception)


def test_every_class_with_original_names_is_one_of_diffusers() -> None:
    for name in {config["_class_name"] for config in PUBLISHED.values()}:
        assert hasattr(diffusers, name)
        assert names_of(name, "test")
