"""Original checkpoints: the tensors that diffusers' converters make, one at a time, and codes as of diffusers' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_hunyuan_video_transformer_to_diffusers,
    convert_wan_transformer_to_diffusers,
)
from safetensors.torch import load_file, save_file

from dvdq_models import DvdqError, Recipe
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.lazy import open_file
from dvdq_models.streaming import quantize_checkpoint
from dvdq_models.streaming.original import convert, repository_of

RECIPE = Recipe.named("quarot", "W4A8")


@pytest.fixture
def folder(transformer: Any, tmp_path: Path) -> Path:
    transformer.save_pretrained(tmp_path / "diffusers")
    return tmp_path / "diffusers"


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_wan_from_its_own_format_has_the_same_codes(
    folder: Path, tmp_path: Path, prefix: str, wan_name: Callable[[str], str]
) -> None:
    tensors = load_file(folder / f"{WEIGHTS}.safetensors")
    save_file({prefix + wan_name(name): t for name, t in tensors.items()}, tmp_path / "wan.safetensors")
    quantize_checkpoint(tmp_path / "wan.safetensors", tmp_path / "q", RECIPE, config=folder / "config.json")
    quantize_checkpoint(folder, tmp_path / "expected", RECIPE)
    for file in (f"{WEIGHTS}.safetensors", "config.json", "SHA256SUMS"):
        assert (tmp_path / "q" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


def test_split_and_joined_tensors_are_those_of_the_converter(
    tmp_path: Path, hunyuan_tensors: dict[str, torch.Tensor]
) -> None:
    tensors = hunyuan_tensors
    save_file(tensors, tmp_path / "hunyuan.safetensors")
    lazy = open_file("test", tmp_path / "hunyuan.safetensors")
    assert repository_of("test", "", lazy) == "hunyuanvideo-community/HunyuanVideo"
    converted = convert("HunyuanVideoTransformer3DModel", lazy)
    expected = convert_hunyuan_video_transformer_to_diffusers(dict(tensors))
    assert converted.keys() == expected.keys()
    for name, tensor in expected.items():
        made = converted[name].read()
        assert type(made) is torch.Tensor
        assert (converted[name].type.shape, converted[name].type.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(made, tensor), name
    assert converted["norm_out.linear.weight"].where.endswith(": final_layer.adaLN_modulation.1.weight")


def test_image_and_control_tensors_of_wan_are_renamed_too(tmp_path: Path) -> None:
    names = ("img_emb.proj.1.weight", "blocks.0.cross_attn.k_img.weight", "vace_blocks.0.after_proj.bias")
    tensors = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    save_file(tensors, tmp_path / "wan.safetensors")
    converted = convert("WanVACETransformer3DModel", open_file("test", tmp_path / "wan.safetensors"))
    expected = convert_wan_transformer_to_diffusers(dict(tensors))
    assert {name: tensor.read().tolist() for name, tensor in converted.items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


def test_without_a_config_it_is_the_one_that_from_single_file_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wan_name: Callable[[str], str]
) -> None:
    tensors = {wan_name(n): t for n, t in load_file(folder / f"{WEIGHTS}.safetensors").items()}
    save_file(tensors, tmp_path / "wan.safetensors")
    asked: list[str] = []

    def download(repository: str, **_: Any) -> str:
        asked.append(repository)
        return str(folder)

    monkeypatch.setattr("dvdq_models.files.hub.snapshot_download", download)
    quantize_checkpoint(tmp_path / "wan.safetensors", tmp_path / "q", RECIPE)
    assert asked == ["Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"]  # what diffusers takes every other width for


@pytest.mark.parametrize("name", ["mp_rank_00_model_states.pt", "wan.pth"])
def test_a_pickle_is_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not even a pickle")
    with pytest.raises(DvdqError, match=f"expected safetensors; a pickle can run code, got {name}"):
        quantize_checkpoint(tmp_path / name, tmp_path / "q", RECIPE)


def test_another_model_is_named(tmp_path: Path) -> None:
    save_file({"unet.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(
        DvdqError, match=r"original checkpoint of wan or hunyuan-video, got tensors such as unet\.weight"
    ):
        quantize_checkpoint(tmp_path / "other.safetensors", tmp_path / "q", RECIPE)


def test_a_class_without_a_converter_is_named() -> None:
    with pytest.raises(DvdqError, match="diffusers converts, got HunyuanVideoFramepackTransformer3DModel"):
        convert("HunyuanVideoFramepackTransformer3DModel", {})


@pytest.mark.parametrize("shape", [[0, 2**63], [2**40, 0, 2**40]])
def test_a_shape_that_nothing_can_count_is_refused(shape: list[int], tmp_path: Path) -> None:
    """Though it has no values, and so is as many bytes as it says."""
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DvdqError, match=r"read: .*x\.safetensors: expected .*beyond 64 bits"):
        open_file("read", tmp_path / "x.safetensors")
