"""The short session on a GPU, on a CPU: hangs, crashes and a spent budget cost what they must and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import gpu_quick
from benchmarks.gpu_quick import STAGES, Run, Stage

from dvdq_kernels.refusals import absence

ROOT = Path(__file__).parents[2]
HERE = str(Path(__file__).parent)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(gpu_quick, "GRACE", 1.0)
    monkeypatch.setattr(gpu_quick, "EMULATED", 1)
    monkeypatch.setattr(gpu_quick, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PYTHONPATH", HERE)
    return Run(tmp_path / "out", "cpu")


def stage(name: str, seconds: float = 60, **options: Any) -> Stage:
    return Stage(name, f"quick_stages:{name}", seconds, **{"least": 1, **options})


def results(run: Run, name: str) -> dict[str, Any]:
    """What each step of a stage gave, or its error."""
    return {line["step"]: line.get("found", line.get("error")) for line in run.log.read(name) if "ok" in line}


def test_a_hang_and_a_crash_cost_the_step_that_they_are_in(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.run([[stage("troubled", 4, backend="cupy")], [stage("later")]], 120)
    assert results(run, "troubled") == {
        "right": 3,
        "wrong": "ZeroDivisionError: division by zero",
        "wgmma: hangs": "hung, and was killed",
        "after the hang": ["wgmma"],
        "crashes": "its process died",
        "after the crash": "0",
    }
    assert run.log.begun("troubled").count("right") == 1
    assert [line["ended"] for line in run.log.read("troubled") if "ended" in line] == ["killed", -6, 0]
    assert results(run, "later") == {"alone": "0"}, "what hung once is gone around by all that follow"
    said = capsys.readouterr().out
    assert "troubled             3 of 6 right" in said
    assert "wgmma: hangs: hung, and was killed" in said
    assert "crashes: its process died" in said
    assert (run.folder / "summary.txt").read_text().strip() in said


def test_a_backend_that_hangs_elsewhere_is_not_run_again(run: Run) -> None:
    run.log.write("smoke cupy", begins="decoding")
    run._blame(Stage("smoke cupy", "", 1, 1, "cupy"), hung=True)
    run.run([[Stage("exact cupy", "quick_stages:later", 9, 1, "cupy")], [stage("later")]], 60)
    assert run.log.read("exact cupy")[-1]["left_out"] == "cupy is avoided"
    assert results(run, "later") == {"alone": None}


def test_what_does_not_fit_is_left_out_and_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.run([[stage("slow", 4)], [stage("later", least=1000)]], 60)
    parts = [line for line in run.log.read("slow") if line.get("ok")]
    assert 0 < len(parts) < 100, "it ends itself when its time is over"
    assert run.log.read("slow")[-2]["left_out"] == "no time left"
    assert "killed" not in {line.get("ended") for line in run.log.read("slow")}
    assert "s are left" in run.log.read("later")[-1]["left_out"]
    assert capsys.readouterr().out.rstrip().splitlines()[-3] == "left out: --stages 'slow,later'"


def test_what_is_not_installed_is_left_out(run: Run) -> None:
    run.run([[stage("later", tool=("no-such-profiler",))]], 60)
    assert run.log.read("later")[-1]["left_out"] == "no-such-profiler is not installed"


def test_stages_that_no_gpu_is_needed_for_run_from_a_copy_of_the_tree(tmp_path: Path) -> None:
    """Without a repository, nox and pytest: every kernel once, emulated as 9.0 and interpreted, outputs checked."""
    if shutil.which(os.environ.get("CXX") or "c++") is None or absence("triton"):
        pytest.skip("needs a C++ compiler and Triton")
    copy = tmp_path / "copy"
    for folder in ("benchmarks", "packages", "tests/conformance"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("pytest", "nox", "av", "imageio_ffmpeg"):
        (blocked / f"{name}.py").write_text("raise ImportError('not on a bare machine')")
    environment = {**os.environ, "PYTHONPATH": str(blocked), "GPU_QUICK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "benchmarks", "gpu_quick", "--device", "cpu", "--budget", "900", "--out", "found"]
    names = ("probe", "smoke triton", "smoke cupy")
    done = subprocess.run(
        [*command, "--stages", ",".join(names)], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (copy / "found/quick.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line.get("ok") is False]
    for name in names:
        steps = [line["step"] for line in lines if line["stage"] == name and line.get("ok")]
        assert len(steps) == (2 if name == "probe" else 14), name
    assert sum("wgmma" in line.get("step", "") for line in lines) == 3
    for name in names:
        assert f"{name:20} " in done.stdout


def test_every_stage_is_there_and_knows_its_function() -> None:
    from importlib import import_module

    stages = [stage for group in STAGES for stage in group]
    assert len({stage.name for stage in stages}) == len(stages)
    for one in stages:
        module, _, name = one.function.partition(":")
        if not (module.endswith("preparing") and absence("triton")):
            assert callable(getattr(import_module(module), name))
        assert one.least < one.seconds
    assert sum(stage.seconds for group in STAGES for stage in group[:1]) > 900, "a budget leaves some of them out"


def test_a_pass_that_finishes_is_weighed_wherever_its_sets_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.quick import timings
    from diffusers import WanTransformer3DModel

    from dvdq_models.inspecting.sizes import describe
    from dvdq_models.layers.prefetching import Prefetcher
    from dvdq_reference.spec.recipe import Recipe

    taken: list[Any] = []
    take = Prefetcher.take
    monkeypatch.setattr(Prefetcher, "take", lambda *asked: taken.append(asked) or take(*asked))
    sizes = {"num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 384, "num_layers": 1}
    model = WanTransformer3DModel(**sizes, text_dim=128, freq_dim=64, rope_max_seq_len=32)
    (tmp_path / "config.json").write_text(model.to_json_string())
    found = json.loads(json.dumps(timings._finishing_passes("cpu", str(tmp_path / "config.json"), "5x32x32", 2)))
    assert {place: len(of["seconds"]) for place, of in found.items()} == {"device": 2, "host": 2}
    layers = describe(model, Recipe.named("dvd-quant-finish", "W4A4")).layers
    second = sum(layer.finish_bytes for layer in layers)
    assert len(taken) == 3 * sum(layer.finish_bytes > 0 for layer in layers)
    assert found["device"]["weights"] - found["host"]["weights"] == second > 0


def test_an_archive_of_what_was_compiled_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_quick, "CACHE", tmp_path / "here")
    kernels = tmp_path / "here/triton/key"
    kernels.mkdir(parents=True)
    for name in ("kernel.cubin", "kernel.json", "kernel.ptx"):
        (kernels / name).write_text(name)
    said = json.dumps({"kernels": 1, "errors": []})
    asked = subprocess.CompletedProcess([], 0, f"{said}\n", "")
    monkeypatch.setattr(gpu_quick.subprocess, "run", lambda *command, **options: asked)
    gpu_quick.prepare(tmp_path / "prepared.tar.gz", 90)
    monkeypatch.setattr(gpu_quick, "CACHE", tmp_path / "there")
    gpu_quick.unpack(tmp_path / "prepared.tar.gz")
    assert {path.name for path in (tmp_path / "there").rglob("*.*")} == {"kernel.cubin", "kernel.json"}
