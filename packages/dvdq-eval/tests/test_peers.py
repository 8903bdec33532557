"""Peers without their packages: the script runs in this environment, on a tiny untrained pipeline."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file
from torch import nn

from dvdq_eval import environments
from dvdq_eval.peers import generate as script
from dvdq_eval.peers import records, run
from dvdq_eval.peers.records import (
    COMFY_W4A4,
    COMFY_W4A4_OURS,
    COMFY_W4A8,
    COMFY_W4A8_OURS,
    ORBITQUANT_W4A4,
    ORBITQUANT_W4A6,
    SDNQ,
    SDNQ_UINT4,
    Peer,
)
from dvdq_eval.peers.run import PeerSummary, VideoJob, read_video, run_peer
from dvdq_eval.videos.making import generate
from dvdq_models.comfyui.codebook import Codebook
from dvdq_models.comfyui.formats import Groups, SignedRows
from dvdq_models.families import family_of
from dvdq_models.moving_shapes.wan import (
    LATENT_CHANNELS,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_vae,
)
from dvdq_reference.spec.errors import DvdqError

SETTINGS = {
    "negative_prompt": "",
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "max_sequence_length": 16,
}
PROMPTS = ("a red circle moves left quickly over a gray background", "a cyan triangle moves up slowly over a black one")
LINEARS = ("blocks.0.attn1.to_q", "blocks.1.ffn.net.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_transformer: Callable[[int], Any]) -> Path:
    tokenizer = build_tokenizer()
    transformer = tiny_transformer(LATENT_CHANNELS)
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        transformer=transformer,
        vae=build_vae().eval(),
        scheduler=build_scheduler(),
    )
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(str(path))
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each peer's Python is this one."""
    for name in ("ORBITQUANT", "SDNQ", "COMFY_KITCHEN"):
        monkeypatch.setenv(f"DVDQ_PEER_PYTHON_{name}", sys.executable)


@pytest.fixture
def instead(here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run other lines in place of ``generate.py``."""

    def replace(lines: str) -> None:
        path = tmp_path / "instead.py"
        path.write_text(lines)
        monkeypatch.setattr(run, "_SCRIPT", path)

    return replace


def make_jobs(folder: Path) -> list[VideoJob]:
    return [VideoJob(prompt, 7 + number, folder / f"{number}.npz") for number, prompt in enumerate(PROMPTS)]


def run_quickly(
    folder: Path, on_video: Callable[[VideoJob, float | None], None] | None = None, timeout: float = 60.0
) -> PeerSummary:
    tell = on_video or (lambda job, seconds: None)
    return run_peer(
        ORBITQUANT_W4A4, folder, "WanPipeline", SETTINGS, make_jobs(folder / "out"), LINEARS, tell, timeout=timeout
    )


def script_job(folder: Path, jobs: Sequence[VideoJob], **changes: Any) -> dict[str, Any]:
    job = {
        "peer": "sdnq",
        "options": None,
        "quantize": [],
        "weight_only": [],
        "pipeline_folder": str(folder),
        "pipeline_class": "WanPipeline",
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "settings": SETTINGS,
        "videos": [{"prompt": job.prompt, "seed": job.seed, "path": str(job.path)} for job in jobs],
    }
    return {**job, **changes}


def test_full_precision_is_ours_bit_for_bit(folder: Path, here: None, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path / "videos")
    told: list[tuple[VideoJob, float | None]] = []
    summary = run_peer(
        SDNQ,  # without options, full precision
        folder,
        "WanPipeline",
        SETTINGS,
        jobs,
        (),
        lambda job, seconds: told.append((job, seconds)),
    )
    assert [job for job, _ in told] == jobs
    assert all(seconds is not None and seconds > 0 for _, seconds in told)
    assert (summary.layers, summary.stored_bytes, summary.bits_per_weight) == (0, 0, None)
    assert summary.versions["torch"] == metadata.version("torch")
    pipeline = WanPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for job in jobs:
        ours = generate(pipeline, job.prompt, seed=job.seed, settings=SETTINGS)
        theirs = read_video(job.path)
        assert theirs.frames.tobytes() == ours.frames.tobytes()
        assert theirs.latents.tobytes() == ours.latents.tobytes()
        assert theirs.frames.shape == (5, 32, 32, 3)
        assert theirs.latents.shape == (LATENT_CHANNELS, 2, 4, 4)


def test_a_second_run_makes_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path)
    script.main(script_job(folder, jobs), lambda values: None)
    first = jobs[0].path.read_bytes()
    jobs[0].path.unlink()
    jobs[1].path.write_bytes(b"not touched")
    told: list[dict[str, Any]] = []
    script.main(script_job(folder, jobs), told.append)
    assert jobs[0].path.read_bytes() == first
    assert jobs[1].path.read_bytes() == b"not touched"
    assert told[1]["seconds"] > 0
    assert told[2] == {"video": 1, "seconds": None}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npz", "1.npz"]


class Packed(nn.Module):
    """Half a byte a weight, four bytes a row, and a bias."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        self.register_buffer("codes", torch.zeros(rows, columns // 2, dtype=torch.uint8))
        self.register_buffer("scale", torch.zeros(rows))
        self.bias = linear.bias


def replace_linears(names: Sequence[str]) -> script.Quantize:
    def quantize(transformer: nn.Module, *_: Any) -> int:
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(transformer.get_submodule(parent), child, Packed(transformer.get_submodule(name)))
        return 64

    return quantize


@pytest.fixture
def transformer(folder: Path) -> Any:
    return WanTransformer3DModel.from_pretrained(str(folder / "transformer"))


def test_what_is_stored_is_counted_without_the_bias(transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(script.QUANTIZE, "sdnq", replace_linears(LINEARS))
    counts = script.quantize(
        transformer, {"peer": "sdnq", "options": {}, "quantize": LINEARS[:1], "weight_only": LINEARS[1:]}
    )
    weights = 2 * 128 * 128
    assert counts == {"layers": 2, "weights": weights, "stored_bytes": weights // 2 + 2 * 4 * 128 + 64}


@pytest.mark.parametrize("replaced", [LINEARS[:1], (*LINEARS, "proj_out")])
def test_other_linears_than_asked_for_are_an_error(
    transformer: Any, monkeypatch: pytest.MonkeyPatch, replaced: Sequence[str]
) -> None:
    monkeypatch.setitem(script.QUANTIZE, "sdnq", replace_linears(replaced))
    with pytest.raises(ValueError, match="disagree about 1 linears"):
        script.quantize(transformer, {"peer": "sdnq", "options": {}, "quantize": LINEARS, "weight_only": ()})


@pytest.mark.parametrize("peer", [COMFY_W4A4, COMFY_W4A8, COMFY_W4A4_OURS, COMFY_W4A8_OURS], ids=lambda p: p.label)
def test_comfy_kitchen_gets_formats_and_codes_where_they_are_ours(transformer: Any, peer: Peer, tmp_path: Path) -> None:
    assert peer.give is not None
    assert peer.options is not None
    treatments = family_of(transformer).treatments(transformer)
    peer.give(transformer, treatments, peer.options, tmp_path / "layers")
    file = load_file(tmp_path / "layers")
    formats = {"convrot_w4a4": SignedRows(4, 64), "asym_w4a8_int8": Codebook(64)}
    for name, treatment in treatments.items():
        found = {key.rpartition(".")[2]: tensor for key, tensor in file.items() if key.rpartition(".")[0] == name}
        if treatment == "keep":
            assert found == {}
            continue
        encoding = formats[peer.options["format"]] if treatment == "quantize" else Groups()
        assert json.loads(found.pop("comfy_quant").numpy().tobytes()) == encoding.config
        if treatment == "quantize" and peer.options["codes"] == "its own":
            assert found == {}
            continue
        wanted = encoding.encode(transformer.get_submodule(name).weight.detach())
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[part].view(torch.uint8), wanted[part].view(torch.uint8)) for part in wanted)


def test_what_comfy_kitchen_is_given_reaches_it(tmp_path: Path, instead: Callable[[str], None]) -> None:
    copy = tmp_path / "copy.json"
    instead(f"import sys\nopen({str(copy)!r}, 'w').write(open(sys.argv[1]).read())\n{SAY_ALL}")
    jobs = make_jobs(tmp_path / "out")
    layers = tmp_path / "layers"
    run_peer(COMFY_W4A4, tmp_path, "WanPipeline", SETTINGS, jobs, LINEARS, lambda job, seconds: None, layers=layers)
    options = json.loads(copy.read_text())["options"]
    assert options == {"format": "convrot_w4a4", "codes": "its own", "layers": str(layers)}


@pytest.mark.parametrize("width", [1024, 1025])
def test_products_of_integers_are_exact(width: int) -> None:
    """At the end of float32's range, where the largest sum is 2^24, and beyond it."""
    a = torch.randint(-128, 128, (3, width), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    a[0] = -128
    a[1, :-1] = -128
    expected = a.long() @ a.long().T
    assert torch.equal(script.multiply_integers(a, a.T).long(), expected)


def test_the_script_needs_nothing_of_this_project() -> None:
    tree = ast.parse(Path(script.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {
        "diffusers",
        "numpy",
        "safetensors",
        "torch",
    }


SAY_ALL = """
import json
print(json.dumps({"quantized": {"layers": 2, "weights": 16, "stored_bytes": 9, "seconds": 0.5, "versions": {}}}))
print(json.dumps({"video": 0, "seconds": 1.0}))
print(json.dumps({"video": 1, "seconds": None}), flush=True)
"""


def test_a_failure_is_one_error_with_its_last_words(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead(SAY_ALL + "import sys\nsys.stderr.write('a warning\\n\\nValueError: no group of 64\\n')\nsys.exit(3)")
    told: list[float | None] = []
    with pytest.raises(DvdqError) as caught:
        run_quickly(tmp_path, lambda job, seconds: told.append(seconds))
    assert caught.value.where == "orbitquant W4A4"
    assert caught.value.got == "exit status 3 | a warning | ValueError: no group of 64"
    assert told == [1.0, None]


def test_an_end_before_the_last_video_is_an_error(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead("")
    with pytest.raises(DvdqError, match="expected 2 videos, got an end after 0"):
        run_quickly(tmp_path)


def test_silence_is_an_error_after_the_timeout(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead("import time\ntime.sleep(60)")
    with pytest.raises(DvdqError, match=r"got nothing for 0\.5 s"):
        run_quickly(tmp_path, timeout=0.5)


@pytest.mark.skipif(os.name == "nt", reason="signal 0 asks whether a process lives")
def test_no_process_outlives_an_interrupted_run(tmp_path: Path, instead: Callable[[str], None]) -> None:
    pid = tmp_path / "pid"
    instead(f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\n{SAY_ALL}\ntime.sleep(60)")

    def interrupt(job: VideoJob, seconds: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_quickly(tmp_path, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_job_and_the_peers_variables_reach_its_python(tmp_path: Path, instead: Callable[[str], None]) -> None:
    copy = tmp_path / "copy.json"
    instead(
        f"import os, sys\nassert os.environ['ORBITQUANT_KERNELS_AUTOFETCH'] == '0'\nassert sys.flags.isolated\n"
        f"open({str(copy)!r}, 'w').write(open(sys.argv[1]).read())\n{SAY_ALL}"
    )
    summary = run_quickly(tmp_path)
    assert summary.bits_per_weight == 4.5
    wanted = script_job(
        tmp_path,
        make_jobs(tmp_path / "out"),
        peer="orbitquant",
        options={"recipe": "w4a4"},
        quantize=list(LINEARS),
    )
    assert json.loads(copy.read_text()) == wanted


def test_bad_calls_fail_before_an_environment_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "python_of", lambda peer: pytest.fail("made"))
    jobs = make_jobs(tmp_path)
    with pytest.raises(DvdqError, match="names of linears"):
        run_peer(ORBITQUANT_W4A4, tmp_path, "WanPipeline", SETTINGS, jobs, (), lambda job, seconds: None)
    with pytest.raises(DvdqError, match="one twice"):
        run_peer(ORBITQUANT_W4A4, tmp_path, "WanPipeline", SETTINGS, jobs * 2, LINEARS, lambda job, seconds: None)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.npz"
    with pytest.raises(DvdqError, match="expected frames and latents"):
        read_video(path)
    path.write_bytes(content)
    with pytest.raises(DvdqError, match="expected frames and latents"):
        read_video(path)
    np.savez(path, frames=np.zeros((2, 8, 8, 3)), latents=np.zeros((4, 1, 1, 1), dtype=np.float32))
    with pytest.raises(DvdqError, match="frames: expected float32 with four axes, got float64"):
        read_video(path)


def test_peers_have_names_of_their_own() -> None:
    peers = (ORBITQUANT_W4A4, ORBITQUANT_W4A6, SDNQ_UINT4, COMFY_W4A4, COMFY_W4A8, COMFY_W4A4_OURS, COMFY_W4A8_OURS)
    labels = [peer.label for peer in peers]
    assert labels[:4] == ["orbitquant W4A4", "orbitquant W4A6", "sdnq uint4", "comfy-kitchen W4A4"]
    assert len(set(labels)) == len(labels)
    assert SDNQ.label == "sdnq full precision"
    assert all(peer.name in script.QUANTIZE for peer in peers)


def test_an_environment_has_our_versions_of_what_is_shared() -> None:
    first, *others = records.requirements(SDNQ)
    assert first == f"sdnq=={SDNQ.version}"
    pinned = dict(requirement.split("==") for requirement in others)
    assert {"torch", "diffusers", "transformers", "numpy", "tokenizers"} <= pinned.keys()
    assert all(metadata.version(name).split("+")[0] == version for name, version in pinned.items())


def test_a_named_python_must_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVDQ_PEER_PYTHON_SDNQ", str(tmp_path))
    with pytest.raises(DvdqError, match="DVDQ_PEER_PYTHON_SDNQ: expected an interpreter"):
        records.python_of(SDNQ)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip may install from, and an empty cache beside it."""
    path = tmp_path / "shelf"
    path.mkdir()
    monkeypatch.setenv("DVDQ_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path))
    monkeypatch.setattr(records, "SHARED", ())
    return path


def put_wheel(shelf: Path, name: str, version: str) -> None:
    """The smallest wheel: one module that holds its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(shelf / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def test_an_environment_is_made_once(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put_wheel(shelf, "tinypeer", "1.2")
    peer = Peer("tinypeer", "1.2", {})
    python = records.python_of(peer)
    assert (tmp_path / "cache" / "peers") in python.parents
    told = capfd.readouterr()
    assert "Successfully installed tinypeer-1.2" in told.err
    assert told.out == ""
    command = [str(python), "-I", "-c", "import tinypeer; print(tinypeer.version)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1.2\n"
    monkeypatch.setattr(environments, "_run", lambda *arguments: pytest.fail("made again"))
    assert records.python_of(peer) == python
    with pytest.raises(pytest.fail.Exception, match="made again"):
        records.python_of(Peer("tinypeer", "1.3", {}))


def test_an_environment_that_cannot_be_made_leaves_nothing(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match=r"No matching distribution found for absent==1\.0") as caught:
        records.python_of(Peer("absent", "1.0", {}))
    assert caught.value.expected == "pip to install absent==1.0"
    assert list((tmp_path / "cache" / "peers").iterdir()) == []
