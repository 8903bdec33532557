"""What is wrong with a source is said before the first tensor is written; what is right with it is taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, load_pipeline
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.inspecting.sources import source_configs
from dvdq_models.streaming import quantize_checkpoint
from dvdq_models.streaming.source import open_source

RECIPE = Recipe.named("minmax", "W4A8")
LAYER = "blocks.0.attn1.to_q"


@pytest.fixture
def full(transformer: Any, tmp_path: Path) -> Path:
    transformer.save_pretrained(tmp_path / "full")
    return tmp_path / "full"


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{WEIGHTS}.safetensors")


@pytest.fixture
def own_format(full: Path, wan_name: Callable[[str], str]) -> Callable[[Path], Path]:
    """Writes the same weights in Wan's own names."""

    def write(file: Path) -> Path:
        file.parent.mkdir(exist_ok=True)
        save_file({wan_name(name): tensor for name, tensor in tensors_of(full).items()}, file)
        return file

    return write


def stream_folder(full: Path, file: Path, tmp_path: Path) -> Any:
    return quantize_checkpoint(full, tmp_path / "q", RECIPE)


def stream_file(full: Path, file: Path, tmp_path: Path) -> Any:
    return quantize_checkpoint(file, tmp_path / "q", RECIPE, config=full)


def plug_in_folder(full: Path, file: Path, tmp_path: Path) -> Any:
    return WanTransformer3DModel.from_pretrained(full, quantization_config=DVDQuantConfig("minmax"))


def plug_in_file(full: Path, file: Path, tmp_path: Path) -> Any:
    config = DVDQuantConfig("minmax")
    return WanTransformer3DModel.from_single_file(str(file), config=str(full), quantization_config=config)


WAYS = (stream_folder, stream_file, plug_in_folder, plug_in_file)
COMPANIONS: dict[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {
    "scale_weight": lambda w: {"weight": w.to(torch.float8_e4m3fn), "scale_weight": torch.ones(1)},
    "weight_scale": lambda w: {"weight": w.to(torch.int8), "weight_scale": torch.ones(len(w), 1)},
    "scale_input": lambda w: {"weight": w, "scale_input": torch.ones(1)},
    "comfy_quant": lambda w: {"weight": w, "comfy_quant": torch.zeros(8, dtype=torch.uint8)},
    "float8": lambda w: {"weight": w.to(torch.float8_e4m3fn)},
    "integers": lambda w: {"weight": w.to(torch.uint8)},
    "unknown": lambda w: {"weight": w, "mystery": torch.ones(3)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", COMPANIONS)
def test_a_tensor_that_stands_beside_weights_or_for_them_is_named(
    what: str, way: Callable[..., Any], full: Path, own_format: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = own_format(tmp_path / "own" / "wan.safetensors")
    for path, name in ((full / f"{WEIGHTS}.safetensors", LAYER), (file, "blocks.0.self_attn.q")):
        tensors = load_file(path)
        made = COMPANIONS[what](tensors.pop(f"{name}.weight"))
        save_file(tensors | {f"{name}.{part}": t for part, t in made.items()}, path, metadata={"format": "pt"})
    part = {"float8": "weight", "integers": "weight", "unknown": "mystery"}.get(what, what)
    with pytest.raises(DvdqError, match=rf"blocks\.0\.(attn1\.to_q|self_attn\.q)\.({part}|weight)\b"):
        way(full, file, tmp_path)
    assert not (tmp_path / "q").exists()


def test_two_names_that_become_one_are_no_model(full: Path, own_format: Callable[[Path], Path], tmp_path: Path) -> None:
    file = own_format(tmp_path / "wan.safetensors")
    tensors = load_file(file)
    save_file(tensors | {f"model.diffusion_model.{name}": t.clone() for name, t in tensors.items()}, file)
    with pytest.raises(DvdqError, match="tensors that are all read"):
        quantize_checkpoint(file, tmp_path / "q", RECIPE, config=full)


def _edit_index(folder: Path, **values: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("../blobs/none")


def _shard_missing(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": f"{WEIGHTS}-00001-of-00001.safetensors"}}
    (folder / "vae" / f"{WEIGHTS}.safetensors.index.json").write_text(json.dumps(index))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234\n"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "second expert": (
        lambda f: _edit_index(f, transformer_2=["diffusers", "WanTransformer3DModel"]),
        "transformer_2: expected the folder of a WanTransformer3DModel, got none",
    ),
    "no weights": (
        lambda f: (f / "vae" / f"{WEIGHTS}.safetensors").unlink(),
        "vae: expected the weights of a AutoencoderKLWan, got none",
    ),
    "no component": (lambda f: shutil.rmtree(f / "text_encoder"), "text_encoder: expected the folder of a UMT5"),
    "no configuration": (lambda f: (f / "vae/config.json").unlink(), "vae: expected the config.json of a Auto"),
    "empty folder": (
        lambda f: [file.unlink() for file in (f / "tokenizer").iterdir()],
        "tokenizer: expected the files of a",
    ),
    "pointer": (lambda f: (f / "vae" / f"{WEIGHTS}.safetensors").write_text(POINTER), "got a pointer of git-lfs"),
    "pointer for a vocabulary": (
        lambda f: (f / "tokenizer/spiece.model").write_text(POINTER),
        "spiece.model: expected a file that opens, got a pointer of git-lfs",
    ),
    "link into nowhere": (lambda f: _nowhere(f / "vae" / f"{WEIGHTS}.safetensors"), "got a link into nowhere"),
    "link above": (lambda f: (f / "vae/up").symlink_to(f), "got a link to one above it"),
    "cut short": (
        lambda f: (f / "vae" / f"{WEIGHTS}.safetensors").write_bytes(b"\x08" + b"\0" * 11),
        "vae/.*: expected a safetensors file, complete",
    ),
    "shard": (_shard_missing, "of-00001.safetensors: expected a file that .*index.json lists, got none"),
    "broken JSON": (lambda f: (f / "scheduler/scheduler_config.json").write_text("{"), "config.json: expected JSON"),
    "mark": (
        lambda f: (f / "vae/config.json").write_text((f / "vae/config.json").read_text(), "utf-8-sig"),
        "vae/config.json: expected JSON in UTF-8 without a byte order mark",
    ),
    "unknown pipeline": (lambda f: _edit_index(f, _class_name="WanPipe"), "_class_name: expected a class of the"),
    "unknown component": (lambda f: _edit_index(f, vae=["diffusers", "VAE9"]), "vae: expected a class of the .*VAE9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_incomplete_pipeline_is_named_before_anything_is_written(
    damage: str, pipeline_folder: Path, tmp_path: Path
) -> None:
    change, message = DAMAGES[damage]
    change(pipeline_folder)
    with pytest.raises(DvdqError, match=message):
        quantize_checkpoint(pipeline_folder, tmp_path / "q", RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_links_to_folders_and_files_are_followed(pipeline_folder: Path, tmp_path: Path) -> None:
    for part in ("text_encoder", "transformer"):
        shutil.move(pipeline_folder / part, tmp_path / f"elsewhere-{part}")
        (pipeline_folder / part).symlink_to(tmp_path / f"elsewhere-{part}", target_is_directory=True)
    quantize_checkpoint(pipeline_folder, tmp_path / "q", RECIPE)
    shutil.rmtree(tmp_path / "elsewhere-text_encoder")
    assert load_pipeline(tmp_path / "q").text_encoder is not None


def test_a_result_that_would_not_load_is_not_published(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix != ".safetensors":
            shutil.copyfile(source, target)

    monkeypatch.setattr("dvdq_models.streaming.quantizer._copy", forgetful)
    with pytest.raises(DvdqError, match="expected the weights of a"):
        quantize_checkpoint(pipeline_folder, tmp_path / "q", RECIPE)
    assert not (tmp_path / "q").exists()


def test_a_folder_is_read_like_the_file_in_it_whatever_its_name(
    full: Path, own_format: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = own_format(tmp_path / "download" / "wan_t2v_bf16.safetensors")
    one = quantize_checkpoint(file, tmp_path / "one", RECIPE, config=full)
    quantize_checkpoint(file.parent, tmp_path / "two", RECIPE, config=full)
    tensors = load_file(file)
    names = sorted(tensors)
    for part in range(2):
        save_file({name: tensors[name] for name in names[part::2]}, tmp_path / "download" / f"part-{part}.safetensors")
    with pytest.raises(DvdqError, match=r"expected parts of one model in one folder, got .* also in part-"):
        quantize_checkpoint(file.parent, tmp_path / "three", RECIPE, config=full)
    file.unlink()
    quantize_checkpoint(file.parent, tmp_path / "three", RECIPE, config=full)
    results = [tensors_of(tmp_path / name) for name in ("one", "two", "three")]
    assert all(all(torch.equal(result[name], t) for name, t in results[0].items()) for result in results)
    assert one.bytes_written == sum(tensor.nbytes for tensor in results[0].values())
    assert source_configs(file.parent, full)["transformer"]["num_layers"] == 2


def test_the_original_repository_of_two_experts(full: Path, own_format: Callable[[Path], Path], tmp_path: Path) -> None:
    repository = tmp_path / "Wan2.2-T2V-A14B"
    repository.mkdir()
    experts = {"transformer": "high_noise_model", "transformer_2": "low_noise_model"}
    for seed, folder in enumerate(experts.values()):
        file = own_format(repository / folder / f"{WEIGHTS}.safetensors")
        tensors = load_file(file)
        save_file({name: tensor + seed for name, tensor in tensors.items()}, file)
        (repository / folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 128}))
    (repository / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"a pickle, not read")
    assert source_configs(repository, full).keys() == experts.keys()
    quantize_checkpoint(repository, tmp_path / "q", RECIPE, config=full)
    first, second = (load(tmp_path / "q" / name) for name in experts)
    assert torch.equal(second.proj_out.bias, first.proj_out.bias + 1)
    shutil.rmtree(repository / "low_noise_model")
    with pytest.raises(DvdqError, match="low_noise_model: expected weights"):
        open_source(repository, full)
