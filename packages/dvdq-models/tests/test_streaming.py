"""From disk to disk: the tensors of load + quantize + save, whatever kills it; one clear error for what is broken."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from dvdq_models import DvdqError, Recipe, load_pipeline, quantize, save
from dvdq_models.checkpoint import stored_dtype, writing
from dvdq_models.checkpoint.checksums import SUMS, write_sums
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.layout import INDEX
from dvdq_models.checkpoint.lazy import LazyTensor
from dvdq_models.layers import linear
from dvdq_models.streaming import quantize_checkpoint, quantizer
from dvdq_reference.spec.recipe import BitSchedule, WeightRule

RECIPE = Recipe.named("dvd-quant", "W4A6")


def in_memory(folder: Path, destination: Path, recipe: Recipe = RECIPE) -> Path:
    name = json.loads((folder / "config.json").read_text())["_class_name"]
    model_class = {c.__name__: c for c in (WanTransformer3DModel, HunyuanVideoTransformer3DModel)}[name]
    return save(quantize(model_class.from_pretrained(folder, dtype=stored_dtype(folder)), recipe), destination)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def assert_same_tensors(first: Path, second: Path) -> None:
    found, expected = tensors_of(first), tensors_of(second)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, name) == (tensor.dtype, name)
        assert torch.equal(found[name], tensor), name


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(transformer: Any, tmp_path: Path) -> Path:
    """A transformer in several shards, in bfloat16 but for what diffusers keeps in float32."""
    for name, parameter in transformer.named_parameters():
        if not set(transformer._keep_in_fp32_modules) & set(name.split(".")):
            parameter.data = parameter.data.to(torch.bfloat16)
    transformer.save_pretrained(tmp_path / "full", max_shard_size="400KB")
    assert (tmp_path / "full" / INDEX).is_file()
    return tmp_path / "full"


FINISHING = Recipe.named("minmax", "W4A4", schedule=BitSchedule("low", last_high=1), finish=WeightRule(4, "bgr", 64))


@pytest.mark.parametrize("recipe", [RECIPE, Recipe.named("quarot", "W4A4"), FINISHING], ids=lambda recipe: recipe.name)
def test_streaming_is_load_quantize_save(folder: Path, tmp_path: Path, recipe: Recipe) -> None:
    report = quantize_checkpoint(folder, tmp_path / "q", recipe)
    expected = in_memory(folder, tmp_path / "expected", recipe)
    assert_same_tensors(tmp_path / "q", expected)
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "q", expected))
    theirs.pop("_name_or_path")
    assert ours == theirs
    assert report.bytes_written == sum(t.nbytes for t in tensors_of(expected).values())
    assert report.bytes_read == sum(t.nbytes for t in tensors_of(folder).values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "full", "q"]


def test_hunyuan_video_streams_too(hunyuan_transformer: Any, tmp_path: Path) -> None:
    hunyuan_transformer.to(torch.bfloat16).save_pretrained(tmp_path / "full")
    report = quantize_checkpoint(tmp_path / "full", tmp_path / "q", RECIPE)
    assert_same_tensors(tmp_path / "q", in_memory(tmp_path / "full", tmp_path / "expected"))
    assert report.largest_tensor == max(t.nbytes for t in tensors_of(tmp_path / "full").values())


def test_one_tensor_is_in_memory_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    original = LazyTensor.__init__

    def counting(self: LazyTensor, where: str, type_: Any, read: Callable[[], torch.Tensor]) -> None:
        def read_alone() -> torch.Tensor:
            assert not [ref for ref in alive if ref() is not None]
            tensor = read()
            alive.append(weakref.ref(tensor))
            return tensor

        original(self, where, type_, read_alone)

    monkeypatch.setattr(LazyTensor, "__init__", counting)
    quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    assert len(alive) == len(tensors_of(folder))


def test_a_large_weight_is_quantized_in_chunks_of_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = in_memory(folder, tmp_path / "expected")
    sizes = []
    whole = sys.modules["dvdq_models.layers.encoding"].quantize_weight  # type: ignore[attr-defined]

    def recorded(weight: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(weight.numel())
        return whole(weight, *args, **kwargs)

    monkeypatch.setattr("dvdq_models.layers.encoding.quantize_weight", recorded)
    monkeypatch.setattr("dvdq_models.layers.encoding._CHUNK", 5000)
    quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    assert max(sizes) <= 5000
    assert_same_tensors(tmp_path / "q", expected)


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "small"
    small = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 128, "text_dim": 32}
    WanTransformer3DModel(**small).save_pretrained(folder)
    runs = tmp_path / "runs"
    runs.mkdir()
    script = str(Path(__file__).with_name("killed_runs.py"))
    done = subprocess.run([sys.executable, script, str(folder), str(runs), "20"], stdout=subprocess.PIPE, check=True)
    assert len(json.loads(done.stdout)["died"]) == 20
    expected = files_of(runs / "whole")
    resumed = []
    for i in range(20):
        destination = runs / str(i)
        if not destination.exists() or (runs / f".{i}.part").exists():
            resumed.append(quantize_checkpoint(folder, destination, RECIPE, backend="torch").resumed_bytes)
        assert files_of(destination) == expected
    assert sum(done_before > 0 for done_before in resumed) >= 5
    assert sorted(path.name for path in runs.iterdir()) == sorted(["whole", *map(str, range(20))])


def test_killed_after_the_result_got_its_name_the_rest_is_cleared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, **_: Any) -> None:
        assert self.name in {"identity.json", "journal"}
        if (tmp_path / "q").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dvdq_models.files.workspace.Path.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    before = files_of(tmp_path / "q")
    with pytest.raises(DvdqError, match="expected a folder that does not exist yet"):
        quantize_checkpoint(folder, tmp_path / "q", Recipe.named("minmax"))
    quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    assert files_of(tmp_path / "q") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "q"]
    with pytest.raises(DvdqError, match="expected a folder that does not exist yet"):
        quantize_checkpoint(folder, tmp_path / "q", RECIPE)


def _interrupt(*_args: Any, **_kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_what_another_recipe_began_is_kept_until_a_restart(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(quantizer.WeightFiles, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(folder, tmp_path / "q", Recipe.named("minmax"))
    with pytest.raises(DvdqError, match=r"\.q\.part: expected the work that was begun .* got another recipe"):
        quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    os.utime(folder / "config.json")
    again = quantize_checkpoint(folder, tmp_path / "q", RECIPE, restart=True)
    assert again.resumed_bytes == 0
    assert_same_tensors(tmp_path / "q", in_memory(folder, tmp_path / "expected"))


def test_a_line_that_was_cut_is_done_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tmp_path / "expected"
    quantize_checkpoint(folder, expected, RECIPE)
    with monkeypatch.context() as patch:
        patch.setattr(quantizer.WeightFiles, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    journal = tmp_path / ".q.part/journal"
    # What is left of a line may be the name of another part.
    journal.write_text(journal.read_text().splitlines()[0])
    assert quantize_checkpoint(folder, tmp_path / "q", RECIPE).resumed_bytes == 0
    assert files_of(tmp_path / "q") == files_of(expected)


def test_two_processes_on_one_destination(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".q.part").mkdir()
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / ".q.part/lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DvdqError, match="/q: expected no other process, got another at work"):
            quantize_checkpoint(folder, tmp_path / "q", RECIPE)
        other.communicate(b"\n")
    quantize_checkpoint(folder, tmp_path / "q", RECIPE)


def test_a_disk_that_is_too_small_is_named_before_the_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DvdqError, match=r"\.q\.part: expected [\d,]+ bytes free, got 1,000"):
        quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    assert not files_of(tmp_path / ".q.part/result")


def test_a_disk_that_fills_up_loses_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = writing._write_at, 0

    def full_after_forty(*args: Any) -> None:
        nonlocal count
        count += 1
        if count > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr("dvdq_models.checkpoint.writing._write_at", full_after_forty)
        with pytest.raises(DvdqError, match="goes on where this one stopped, got No space left on device"):
            quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    assert not (tmp_path / "q").exists()
    assert quantize_checkpoint(folder, tmp_path / "q", RECIPE).resumed_bytes > 0
    assert_same_tensors(tmp_path / "q", in_memory(folder, tmp_path / "expected"))


def _edit_shard(of: str, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        shard = folder / json.loads((folder / INDEX).read_text())["weight_map"][of]
        tensors = load_file(shard)
        edit(tensors)
        save_file(tensors, shard)

    return run


def _edit_index(edit: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        edit(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return run


def _truncate(folder: Path) -> None:
    shard = max(folder.glob("*.safetensors"))
    os.truncate(shard, shard.stat().st_size - 10)


def _wrong_sum(folder: Path) -> None:
    write_sums(folder)
    text = (folder / SUMS).read_text()
    (folder / SUMS).write_text(text.replace(text[:4], "0000", 1))


def _hub_blob(folder: Path) -> None:
    """As the hub's cache has it, a link to a blob that is called by its digest; the digest is another."""
    shard, blobs = min(folder.glob("*.safetensors")), folder.parent / "blobs"
    blobs.mkdir()
    shard.rename(blobs / ("0" * 64))
    shard.symlink_to(blobs / ("0" * 64))


def _only_pickles(folder: Path) -> None:
    for file in (*folder.glob("*.safetensors"), folder / INDEX):
        file.unlink()
    (folder / f"{WEIGHTS}.bin").write_bytes(b"")


Q = "blocks.1.attn1.to_q.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"-00\d\d\d\.safetensors: expected a safetensors file, complete, got \d+ bytes where"),
        (_edit_shard(Q, lambda t: t.pop(Q)), rf"safetensors: expected tensor {Q}, got 1 missing"),
        (
            _edit_shard(Q, lambda t: t.update(more=torch.zeros(1))),
            r"expected tensors that .*index\.json lists, got more",
        ),
        (_edit_index(lambda m: m.pop(Q)), rf"index\.json lists, got {Q}"),
        (
            _edit_index(lambda m: m.update({Q: "../other.safetensors"})),
            r"index\.json: expected names of .* '\.\./other",
        ),
        (_edit_index(lambda m: m.update({Q: "/etc/other.safetensors"})), "expected names of files in its own folder"),
        (
            _edit_index(lambda m: m.update({Q: "absent.safetensors"})),
            r"absent\.safetensors: expected a safetensors file",
        ),
        (
            _edit_shard(Q, lambda t: t.update({Q: t[Q][:5].clone()})),
            r"to_q\.weight\): expected \[128, 128\], got \[5, 128\]",
        ),
        (_edit_shard(Q, lambda t: t[Q][3].fill_(torch.nan)), rf"safetensors: {Q}: expected finite weights, got NaN"),
        (_edit_shard("proj_out.bias", lambda t: t["proj_out.bias"].fill_(torch.inf)), "proj_out.bias: expected finite"),
        (_edit_shard(Q, lambda t: t.update({Q: t[Q].to(torch.int32)})), f"{Q}: expected one of F64, .* got I32"),
        (_wrong_sum, r"00001-of-\d+\.safetensors: expected SHA-256 0000"),
        (_hub_blob, r"00001-of-\d+\.safetensors: expected SHA-256 000000000000"),
        (_only_pickles, "got pickled ones, which are never read"),
    ],
)
def test_a_broken_source_is_named_and_never_touched(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    before = files_of(folder)
    with pytest.raises(DvdqError, match=message):
        quantize_checkpoint(folder, tmp_path / "q", RECIPE)
    assert files_of(folder) == before
    assert not (tmp_path / "q").exists()


def test_a_tensor_that_the_model_lacks_or_needs_is_named(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copy(folder / "config.json", whole)
    tensors = tensors_of(folder)
    bias = tensors.pop("proj_out.bias")
    save_file(tensors, whole / f"{WEIGHTS}.safetensors")
    with pytest.raises(DvdqError, match=r"whole: expected tensor proj_out\.bias, got 1 missing"):
        quantize_checkpoint(whole, tmp_path / "q", RECIPE)
    save_file({**tensors, "proj_out.bias": bias, "more": bias.clone()}, whole / f"{WEIGHTS}.safetensors")
    with pytest.raises(DvdqError, match="expected no other tensors than the model's, got more"):
        quantize_checkpoint(whole, tmp_path / "q", RECIPE)


@pytest.fixture
def experts_folder(pipeline_folder: Path) -> Path:
    """A pipeline with two transformers, as Wan 2.2's large ones."""
    shutil.copytree(pipeline_folder / "transformer", pipeline_folder / "transformer_2")
    file = pipeline_folder / "transformer_2" / f"{WEIGHTS}.safetensors"
    save_file({name: -tensor for name, tensor in load_file(file).items()}, file)
    index = json.loads((pipeline_folder / "model_index.json").read_text())
    index["transformer_2"] = index["transformer"]
    (pipeline_folder / "model_index.json").write_text(json.dumps(index))
    return pipeline_folder


def test_both_experts_are_quantized_and_the_rest_is_copied(experts_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = quantize_checkpoint(
        experts_folder, tmp_path / "q", RECIPE, progress=lambda _, done, total: seen.append((done, total))
    )
    assert list(report.transformers) == ["transformer", "transformer_2"]
    before, after = files_of(experts_folder), files_of(tmp_path / "q")
    assert {n for n in before if not n.startswith("transformer")} == {
        n for n in after if not n.startswith("transformer")
    }
    assert all(after[name] == data for name, data in before.items() if not name.startswith("transformer"))
    for name in ("transformer", "transformer_2"):
        assert_same_tensors(tmp_path / "q" / name, in_memory(experts_folder / name, tmp_path / name))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    pipeline = load_pipeline(tmp_path / "q")
    assert pipeline.transformer_2 is not None


def test_a_destination_inside_the_source_is_refused(pipeline_folder: Path) -> None:
    before = files_of(pipeline_folder)
    with pytest.raises(DvdqError, match="expected a folder outside the source"):
        quantize_checkpoint(pipeline_folder, pipeline_folder / "q", RECIPE)
    assert files_of(pipeline_folder) == before


def test_of_a_hub_id_what_is_needed_is_downloaded(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def download(repository: str, **kwargs: Any) -> str:
        assert repository == "someone/some-model"
        asked.append(kwargs)
        return str(pipeline_folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dvdq_models.files.hub.snapshot_download", download)
    quantize_checkpoint("someone/some-model", tmp_path / "q", RECIPE)
    assert asked[0]["allow_patterns"] == ["model_index.json", "config.json"]
    assert {"transformer/*", "vae/*", "tokenizer/*"} <= set(asked[1]["allow_patterns"])
    assert "*.bin" in asked[1]["ignore_patterns"]
    assert_same_tensors(tmp_path / "q/transformer", in_memory(pipeline_folder / "transformer", tmp_path / "expected"))


def test_layers_go_to_the_device_that_was_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DvdqError, match="device gpu: expected a device that is here"):
        quantize_checkpoint(folder, tmp_path / "q", RECIPE, device="gpu")
    devices = set()
    original = linear.encode_weight

    def recorded(weight: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        devices.add(weight.device.type)
        return original(torch.zeros(weight.shape), *args, **kwargs)

    monkeypatch.setattr(linear, "encode_weight", recorded)
    quantize_checkpoint(folder, tmp_path / "q", RECIPE, device="meta", backend="torch")
    assert devices == {"meta"}
