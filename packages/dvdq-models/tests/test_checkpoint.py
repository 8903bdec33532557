"""Saved and loaded: bit for bit, or one clear error; never half a folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dvdq_models import DvdqError, Recipe, load, load_pipeline, quantize, save, save_pipeline
from dvdq_models.checkpoint import is_quantized
from dvdq_models.checkpoint.checksums import SUMS, write_sums
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import INDEX
from dvdq_models.checkpoint.writing import WeightFiles

FILE = f"{WEIGHTS}.safetensors"


@pytest.fixture
def saved(transformer: Any, tmp_path: Path) -> Path:
    return save(quantize(transformer, Recipe.named("dvd-quant", "W4A6")), tmp_path / "quantized")


def _edit_config(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def _edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors and make the checksum right again."""
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)
    write_sums(folder)


@pytest.mark.parametrize("recipe", [Recipe.named(n, b) for n, b in (("dvd-quant", "W4A6"), ("quarot", "W4A4"))])
def test_reload_is_bit_identical(
    transformer: Any, recipe: Recipe, tmp_path: Path, call: Callable[..., torch.Tensor]
) -> None:
    quantize(transformer, recipe)
    # As a file of a real model: the layers that diffusers keeps in float32 stay, the rest is bfloat16.
    for name in ("patch_embedding", "proj_out"):
        transformer.get_submodule(name).to(torch.bfloat16)
    again = load(save(transformer, tmp_path / "q"))
    before, after = transformer.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor)
    for name in ("patch_embedding", "proj_out"):
        transformer.get_submodule(name).to(torch.float32)
        again.get_submodule(name).to(torch.float32)
    assert torch.equal(call(again), call(transformer))


def test_the_file_is_plain_safetensors_with_the_documented_names(saved: Path) -> None:
    tensors = load_file(saved / FILE)
    layer = "blocks.0.ffn.net.2"
    found = {name.removeprefix(f"{layer}."): tensor for name, tensor in tensors.items() if name.startswith(layer)}
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in found.items()} == {
        "qweight": (torch.uint8, (128, 192)),
        "scale": (torch.float32, (128, 1)),
        "zero": (torch.int16, (128, 1)),
        "bias": (torch.float32, (128,)),
    }


def test_the_file_is_what_safetensors_itself_would_write(saved: Path, tmp_path: Path) -> None:
    save_file(load_file(saved / FILE), tmp_path / "same", metadata={"format": "pt"})
    assert (saved / FILE).read_bytes() == (tmp_path / "same").read_bytes()


def test_many_shards_load_as_one(transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WeightFiles.__init__, "__defaults__", (50_000,))
    folder = save(quantize(transformer, Recipe.named("quarot")), tmp_path / "q")
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 3
    index = json.loads((folder / INDEX).read_text())
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    assert index["metadata"]["total_size"] == sum(t.nbytes for file in files for t in load_file(file).values())
    assert all(sum(t.nbytes for t in load_file(file).values()) <= 50_000 or len(load_file(file)) == 1 for file in files)
    again = load(folder).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in transformer.state_dict().items())


def test_a_pipeline_folder_keeps_everything_else(
    pipeline: Any, pipeline_folder: Path, tmp_path: Path, generate: Callable[..., torch.Tensor]
) -> None:
    quantize(pipeline.transformer, Recipe.named("dvd-quant", "W4A8"))
    folder = save_pipeline(pipeline_folder, pipeline.transformer, tmp_path / "q")
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        for file in (pipeline_folder / part).iterdir():
            assert (folder / part / file.name).read_bytes() == file.read_bytes()
    assert is_quantized(folder)
    assert not is_quantized(pipeline_folder)
    again = load_pipeline(folder)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(generate(again, 3), generate(pipeline, 3))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["quantization_config"].update(format=3), "expected format 1 or 2, got 3"),
        (lambda c: c["quantization_config"].update(format=2), "expected format 1, of its recipe, got 2"),
        (lambda c: c["quantization_config"].update(quant_method="bnb"), "quantized by dvd-quant, got bnb"),
        (lambda c: c.pop("quantization_config"), "got no quantization_config"),
        (lambda c: c.update(_class_name="OtherModel"), "_class_name: .*WanTransformer3DModel.*, got OtherModel"),
        (lambda c: c["quantization_config"]["recipe"].pop("weight"), "expected the fields of a recipe"),
        (lambda c: c["quantization_config"]["recipe"]["weight"].update(grid="gptq"), "or clip-search, got 'gptq'"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(saved: Path, edit: Any, message: str) -> None:
    _edit_config(saved, edit)
    with pytest.raises(DvdqError, match=message):
        load(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("blocks.0.attn1.to_q.zero"), r"tensor blocks\.0\.attn1\.to_q\.zero, got 1 missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "no other tensors, got extra"),
        (lambda t: t.update({"proj_out.bias": torch.zeros(3)}), r"proj_out\.bias: expected .*\[32\], got .*\[3\]"),
        (
            lambda t: t.update({"blocks.0.attn1.to_q.scale": t["blocks.0.attn1.to_q.scale"].half()}),
            r"to_q\.scale: expected torch\.float32 .* got torch\.float16",
        ),
    ],
)
def test_tensors_are_checked_both_ways(saved: Path, edit: Any, message: str) -> None:
    _edit_tensors(saved, edit)
    with pytest.raises(DvdqError, match=message):
        load(saved)


def test_an_altered_or_truncated_file_is_named(saved: Path) -> None:
    data = (saved / FILE).read_bytes()
    for broken in (data[:-100], data[:-1] + bytes([data[-1] ^ 1])):
        (saved / FILE).write_bytes(broken)
        with pytest.raises(DvdqError, match=f"{FILE}: expected SHA-256"):
            load(saved)
    (saved / FILE).unlink()
    with pytest.raises(DvdqError, match=r"expected files .*got \[\]"):
        load(saved)


def test_checksums_are_those_of_sha256sum_and_follow_nobody(saved: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=saved, check=True, capture_output=True)
    assert set(json.loads((saved / "config.json").read_text())["quantization_config"]) == {
        "quant_method",
        "format",
        "recipe",
    }
    (saved / SUMS).unlink()
    load(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text + f"{'0' * 64}  more.safetensors\n", "more.safetensors"),
        (lambda text: "", r"expected files \[\], got .*safetensors"),
        (lambda text: text.replace("  ", ""), "expected lines as sha256sum writes them"),
    ],
)
def test_checksums_that_do_not_fit_are_named(saved: Path, edit: Callable[[str], str], message: str) -> None:
    (saved / SUMS).write_text(edit((saved / SUMS).read_text()))
    with pytest.raises(DvdqError, match=message):
        load(saved)


def test_no_checkpoint_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match=r"expected a folder with a config\.json"):
        load(tmp_path)


def test_nothing_half_written_stays(transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize(transformer, Recipe.named("minmax"))

    def full_disk(*_args: Any, **_kwargs: Any) -> None:
        (tmp_path / "note").write_text("written before the disk was full")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dvdq_models.checkpoint.writing._write_at", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(transformer, tmp_path / "q")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_an_existing_folder_is_never_touched(transformer: Any, tmp_path: Path) -> None:
    quantize(transformer, Recipe.named("minmax"))
    (tmp_path / "q").mkdir()
    with pytest.raises(DvdqError, match="expected a folder that does not exist yet"):
        save(transformer, tmp_path / "q")
    assert not list((tmp_path / "q").iterdir())


def test_full_precision_cannot_be_saved_as_quantized(transformer: Any, tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match="expected a quantized transformer"):
        save(transformer, tmp_path / "q")
