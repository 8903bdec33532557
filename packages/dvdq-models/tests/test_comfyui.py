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
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dvdq_kernels import quantize_weight
from dvdq_models import DvdqError, Recipe, quantize, save
from dvdq_models.calibration import Calibration
from dvdq_models.checkpoint.checksums import SUMS
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import LazyTensor, open_file
from dvdq_models.cli import app
from dvdq_models.comfyui import codebook, export_checkpoint
from dvdq_models.comfyui.bases import hadamard, rotate
from dvdq_models.comfyui.codebook import Codebook
from dvdq_models.comfyui.formats import Encoding, Groups, SignedRows, activations_too, comfy_quant, weight_only
from dvdq_models.comfyui.names import names_of, original_tensors
from dvdq_models.comfyui.plan import plan_file
from dvdq_models.families import family_of
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.streaming import quantize_checkpoint, tasks
from dvdq_models.streaming.original import convert
from dvdq_models.streaming.source import TransformerSource
from dvdq_reference.oracle import codebook as codebook_oracle
from dvdq_reference.oracle import feedback as feedback_oracle
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.spec.recipe import Rotation, WeightRule

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


def signed(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of a file, int64 ``[out, in]``, by the description of the format."""
    if bits == 8:
        return weight.long()
    unsigned = weight.view(torch.uint8).long()
    nibbles = torch.stack((unsigned % 16, unsigned // 16), dim=2).flatten(1)
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


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


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_the_rotation_is_regular(size: int) -> None:
    """Symmetric, orthonormal, and every row has the same sum: by its properties."""
    h = hadamard(size).double()
    assert torch.equal(h, h.T)
    assert torch.equal(h @ h, torch.eye(size, dtype=torch.float64))
    assert torch.equal(h.sum(dim=0), torch.ones(size, dtype=torch.float64))


def test_codes_are_those_of_our_recipe_in_the_other_basis(tmp_path: Path) -> None:
    """``u' = u Rᵀ H``, a signed permutation, and the same scales: both are one weight, to the bit."""
    weight = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.named("convrot", "W4A4")
    ours = quantize_weight(weight, recipe.weight, rotation=recipe.rotation)
    theirs = SignedRows(4, 256).encode(weight)
    regular = np.kron(np.eye(2), hadamard(256).double().numpy())
    change = np.rint(rotation_matrix(512, Rotation("regular")).T @ regular)
    assert (np.abs(change).sum(axis=0) == 1).all()
    codes = signed(ours.qweight.view(torch.int8), 4).numpy() % 16 - 8  # ours are unsigned
    np.testing.assert_array_equal(signed(theirs["weight"], 4).numpy(), codes @ change)
    assert torch.equal(theirs["weight_scale"], ours.scale[:, 0])


@pytest.mark.parametrize(
    ("encoding", "width"), [(SignedRows(4, 64), 192), (SignedRows(8, 256), 256), (SignedRows(8, 16), 48)]
)
def test_a_row_is_its_scale_times_codes_in_the_rotated_basis(encoding: SignedRows, width: int) -> None:
    """Every code is the nearest to ``W H`` in float64, but where float32 cannot tell; -2^(b-1) is not used."""
    weight = torch.randn(7, width, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 7)[:, None]
    tensors = encoding.encode(weight)
    scale = tensors["weight_scale"].double().view(-1, 1)
    codes, largest = signed(tensors["weight"], encoding.bits), 2 ** (encoding.bits - 1) - 1
    assert encoding.size is not None
    rotated = (weight.double().view(7, -1, encoding.size) @ hadamard(encoding.size).double()).view(7, -1)
    exact = rotated / scale
    # A float32 product over a block: each of its terms is rounded, and so is each sum.
    slack = encoding.size * 2.0**-23 * weight.abs().amax(dim=1, keepdim=True).double() * encoding.size**0.5 / scale
    nearest = exact.clamp(-largest, largest)
    assert ((codes - nearest).abs() <= 0.5 + slack).all()
    assert codes.abs().max() == largest


@pytest.mark.parametrize(
    ("encoding", "tensors", "fields"),
    [
        (SignedRows(4, 256, "int8"), {"weight", "weight_scale"}, {"convrot_groupsize", "linear_dtype"}),
        (SignedRows(8, 256), {"weight", "weight_scale"}, {"convrot", "convrot_groupsize"}),
        (Groups(), {"weight", "weight_scale", "weight_zeros"}, {"group_size"}),
        (
            Codebook(256),
            {"weight", "weight_s_rel", "weight_s_channel", "weight_codebook"},
            {"group_size", "convrot_groupsize"},
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
)
def test_a_layer_has_what_the_loader_reads_and_nothing_else(
    encoding: Encoding, tensors: set[str], fields: set[str]
) -> None:
    """The names are those of ``_load_quantized_module`` in ComfyUI's comfy/ops.py (0271a469fe29)."""
    made = encoding.encode(torch.randn(16, 256, generator=torch.Generator().manual_seed(0)))
    assert set(made) == tensors
    assert {name: TensorType(tuple(t.shape), t.dtype) for name, t in made.items()} == encoding.types(16, 256)
    said = json.loads(comfy_quant(encoding).numpy().tobytes())
    assert set(said) == fields | {"format"}


@pytest.mark.parametrize("size", [256, 16])
def test_levels_are_the_nearest_through_their_rounding(size: int) -> None:
    """Each code's integer is the nearest of its group's sixteen, and no other number of float8 does better by much."""
    weight = torch.randn(4, 2 * size, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 4)[:, None]
    weight[1, :16] = 0.0
    tensors = Codebook(size).encode(weight)
    assert {name: TensorType(tuple(t.shape), t.dtype) for name, t in tensors.items()} == Codebook(size).types(
        4, 2 * size
    )
    codes = (signed(tensors["weight"], 4) % 16).view(4, -1, 16)
    channel = tensors["weight_s_channel"].double()[:, None, None]
    target = (weight.view(4, -1, size) @ hadamard(size)).view(4, -1, 16).double() / channel

    def integers(relative: torch.Tensor) -> torch.Tensor:
        return (tensors["weight_codebook"] * relative.float()[..., None]).round().clamp(-127, 127).double()

    def error(relative: torch.Tensor) -> torch.Tensor:
        return (target[..., None] - integers(relative)[..., None, :]).abs().amin(dim=3).square().sum(dim=2)

    relative = tensors["weight_s_rel"]
    made = integers(relative).gather(2, codes)
    assert torch.allclose((target - made).square().sum(dim=2), error(relative), rtol=1e-5, atol=1e-4)
    raw = relative.view(torch.uint8)
    for step in (-2, -1, 1, 2):
        other = (raw.int() + step).clamp(1, 126).to(torch.uint8).view(torch.float8_e4m3fn)
        assert error(relative).sum() <= error(other).sum()


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_search_of_levels_is_the_oracles(spread: float) -> None:
    """In float64 each code and float8; in float32, where near ties fall otherwise, the error within a thousandth."""
    generator = torch.Generator().manual_seed(0)
    rotated = torch.randn(6, 256, generator=generator, dtype=torch.float64)
    rotated *= torch.logspace(0, -spread, 16, dtype=torch.float64).repeat_interleave(16)
    rotated[1, :32] = 0
    expected = codebook_oracle.search(rotated.numpy())
    codes, relative, channel = codebook._search(rotated)
    np.testing.assert_array_equal(codes.numpy(), expected.codes)
    np.testing.assert_array_equal(relative.double().numpy(), expected.relative)
    np.testing.assert_allclose(channel.numpy(), expected.channel, rtol=1e-13)

    def error(codes: Any, relative: Any, channel: Any) -> Any:
        return np.linalg.norm(codebook_oracle.decode(codes, relative, channel) - rotated.numpy(), axis=1)

    single = [part.double().numpy() for part in codebook._search(rotated.float())]
    single[0] = single[0].astype(np.int64)
    best = error(expected.codes, expected.relative, expected.channel)
    assert (np.abs(error(*single) - best) <= 1e-3 * best).all()


def test_groups_hold_what_the_loader_adds_up() -> None:
    """``W ≈ s (q - 8) + o`` with what is stored, each code the nearest, in at most half a step but where BGR clips."""
    weight = torch.randn(6, 192, generator=torch.Generator().manual_seed(0)) + 0.3
    tensors = Groups().encode(weight)
    scale, offset = (tensors[name].float().T for name in ("weight_scale", "weight_zeros"))
    assert scale.shape == (6, 3)
    unsigned = signed(tensors["weight"], 4) % 16
    levels = torch.arange(16.0) - 8
    values = scale[..., None, None] * levels + offset[..., None, None]
    distance = (weight.view(6, 3, 64, 1) - values).abs()
    chosen = distance.gather(3, unsigned.view(6, 3, 64, 1))[..., 0]
    assert torch.allclose(chosen, distance.amin(dim=3), rtol=0, atol=float(2**-20))
    bgr = quantize_weight(weight, WeightRule(4, "bgr", 64))
    assert ((bgr.scale - scale).abs() <= bgr.scale * 2**-8).all()


def levels_of(encoding: Any, tensors: dict[str, torch.Tensor], width: int) -> torch.Tensor:
    """What each channel's codes stand for, float64 ``[out, in, codes]``, by the description of the format."""
    if isinstance(encoding, SignedRows):
        largest = 2 ** (encoding.bits - 1) - 1
        values = tensors["weight_scale"].double().view(-1, 1, 1) * torch.arange(-largest, largest + 1)
        return values.expand(-1, width, -1)
    if isinstance(encoding, Groups):
        scale, offset = (tensors[name].double().T[..., None] for name in ("weight_scale", "weight_zeros"))
        return (scale * (torch.arange(16) - 8) + offset).repeat_interleave(64, dim=1)
    made = (tensors["weight_codebook"] * tensors["weight_s_rel"].float()[..., None]).round().clamp(-127, 127)
    return (made.double() * tensors["weight_s_channel"].double()[:, None, None]).repeat_interleave(16, dim=1)


@pytest.mark.parametrize(
    "encoding",
    [SignedRows(4, 256), SignedRows(4, 64), SignedRows(8, 16), SignedRows(8, None), Groups(), Codebook(64)],
    ids=lambda encoding: f"{encoding.config['format']}-{getattr(encoding, 'size', None)}",
)
def test_with_moments_each_code_makes_up_for_those_before_it(encoding: Any) -> None:
    """The grids stay; each code is the nearest to what GPTQ has made of its channel, and the outputs err less."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 24, generator=generator) @ torch.randn(24, 256, generator=generator)
    x += 0.2 * torch.randn(600, 256, generator=generator)
    weight = torch.randn(7, 256, generator=generator)
    plain, fed = encoding.encode(weight), encoding.encode(weight, moments=x.T @ x)
    assert all(torch.equal(plain[name], fed[name]) for name in plain if name != "weight")
    size = getattr(encoding, "size", None)
    basis = torch.eye(256, dtype=torch.float64)
    if size is not None:
        basis = torch.block_diag(*[hadamard(size).double()] * (256 // size))
    if size == 256:  # channel after channel of our own basis, whose columns have another order and other signs
        change = torch.from_numpy(np.rint(basis.numpy() @ rotation_matrix(256, Rotation("regular"))))
        order = change.abs().argmax(dim=0)
    else:
        order = torch.arange(256)
    basis = basis[:, order]
    rotated = (weight if size is None else rotate(weight, size)).double()[:, order]
    moments = basis.T @ (x.T @ x).double() @ basis
    upper = torch.from_numpy(np.linalg.cholesky(np.linalg.inv(feedback_oracle.damped(moments.numpy()))).T.copy())
    levels = levels_of(encoding, fed, 256)[:, order]

    def values(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        bits = 8 if tensors["weight"].shape[1] == 256 else 4
        codes = signed(tensors["weight"], bits)
        places = codes + levels.shape[2] // 2 if isinstance(encoding, SignedRows) else codes % 16
        return levels.gather(2, places[:, order, None])[..., 0]

    shifted, found = rotated.clone(), values(fed)
    for j in range(256):
        distance = (levels[:, j] - shifted[:, j, None]).abs().amin(dim=1)
        slack = 1e-6 * levels[:, j].abs().amax(dim=1)  # the rotation is of float32
        assert ((found[:, j] - shifted[:, j]).abs() <= distance + slack).all(), j
        error = (shifted[:, j] - found[:, j]) / upper[j, j]
        shifted[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]

    def output_error(tensors: dict[str, torch.Tensor]) -> float:
        left = rotated - values(tensors)
        return float(((left @ moments) * left).sum())

    assert output_error(fed) < 0.7 * output_error(plain)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (5120, {"format": "convrot_w4a4", "convrot_groupsize": 256}),
        (192, {"format": "convrot_w4a4", "convrot_groupsize": 64}),
        (48, {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 16}),
        (50, {"format": "int8_tensorwise"}),
    ],
)
def test_a_width_that_does_not_fit_gets_eight_bits(width: int, expected: dict[str, Any]) -> None:
    assert activations_too("convrot_w4a4", width).config == expected
    wider = expected | ({"linear_dtype": "int8"} if expected["format"] == "convrot_w4a4" else {})
    assert activations_too("convrot_w4a4", width, "int8").config == wider
    eight = activations_too("convrot_w4a4" if width % 64 == 50 else "int8_tensorwise", width)
    assert eight.config["format"] == "int8_tensorwise"
    only = weight_only(width).config
    assert only["format"] == ("awq_w4a16" if width % 64 == 0 else "int8_tensorwise")


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
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    with pytest.raises(DvdqError, match=r"expected the work that was begun there, .* got another choice"):
        export_checkpoint(folder, tmp_path / "wan.safetensors", **FAST, ends=1)
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
        patch.setattr("dvdq_models.streaming.tasks.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
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
