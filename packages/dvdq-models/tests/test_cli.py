"""The ``dvdq`` command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, load
from dvdq_models.cli import app, main
from dvdq_models.cli.console import fail, run_command
from dvdq_models.running.video import read_mp4
from dvdq_models.streaming import quantize_checkpoint

run = CliRunner().invoke
PROMPT = "a red circle moves left quickly over a gray background"
SMALL = ["--height", "16", "--width", "16", "--frames", "5", "--steps", "4", "--fps", "8", "--json"]


def test_quantize_inspect_generate(pipeline_folder: Path, tmp_path: Path) -> None:
    destination, video = tmp_path / "q", tmp_path / "out" / "video.mp4"
    options = ["--bits", "W4A6", "--delta", "0.5", "--first-high", "1", "--last-high", "1", "--finish", "--json"]
    result = run(app, ["quantize", str(pipeline_folder), str(destination), *options])
    assert result.exit_code == 0, result.output
    quantized = json.loads(result.stdout)
    result = run(app, ["inspect", str(destination), "--json"])
    assert result.exit_code == 0, result.output
    inspected = json.loads(result.stdout)
    assert inspected["recipe"]["schedule"] == {"kind": "delta", "low": 4, "high": 8, "delta": 0.5, "seed": 0} | {
        "measured": "conditional",
        "first_high": 1,
        "last_high": 1,
    }
    assert inspected["recipe"]["finish"] == inspected["recipe"]["weight"]
    assert inspected["bytes_after"] == quantized["bytes_after"]
    options = ["--prompt", PROMPT, "--out", str(video), "--last-high", "2", *SMALL]
    result = run(app, ["generate", str(destination), *options])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads(video.with_suffix(".json").read_text())
    assert [step["finishing"] for step in record["trace"]] == [False, False, True, True]
    assert record["trace"][0]["reason"] == "the first step"
    assert record["average_bits"] == sum(step["bits"] for step in record["trace"]) / 4
    assert read_mp4(video).shape == (5, 16, 16, 3)


def test_a_pipeline_in_full_precision_generates_too(pipeline_folder: Path, tmp_path: Path) -> None:
    result = run(app, ["generate", str(pipeline_folder), "--prompt", PROMPT, "--out", str(tmp_path / "v.mp4"), *SMALL])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["trace"] == []


def test_inspect_tells_the_kernels_of_each_kind_of_layer(pipeline_folder: Path) -> None:
    arguments = ["inspect", str(pipeline_folder), "--kernels", "--tokens", "5000", "--capability", "90"]
    result = run(app, arguments, terminal_width=200)
    assert result.exit_code == 0
    assert "integer_product" in result.stdout
    plans = json.loads(run(app, [*arguments, "--json"]).stdout)["kernels"]
    assert {plan["activation_bits"] for plan in plans} == {4, 8}
    assert {plan["plan"]["backend"] for plan in plans} == {"triton"}


def test_inspect_shows_a_table_of_every_layer(pipeline_folder: Path) -> None:
    result = run(app, ["inspect", str(pipeline_folder), "--layers"], terminal_width=200)
    assert result.exit_code == 0, result.output
    assert "blocks.1.ffn.net.2" in result.output
    assert "triton: " in result.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["quantize", "{full}", "{new}", "--recipe", "gptq"], 2, "expected one of minmax"),
        (["quantize", "{full}", "{new}", "--bits", "W4"], 2, "expected W{weight}A{activation}"),
        (["quantize", "{full}", "{new}", "--bits", "W4A8", "--delta", "1"], 2, "expected a schedule that switches"),
        (
            ["quantize", "{full}", "{new}", "--bits", "W4A8", "--last-high", "2"],
            2,
            "expected a schedule with steps below",
        ),
        (["inspect", "{full}", "--finish"], 2, "schedule.last_high: expected last steps, for finish, got 0"),
        (["generate", "{full}", "--prompt", "x", "--last-high", "2"], 2, "expected a pipeline with a quantized transf"),
        (["quantize", "{full}", "{full}"], 2, "expected a folder that does not exist yet"),
        (["quantize", "{new}", "{new}"], 2, "expected a pipeline or transformer folder"),
        (["quantize", "{full}", "{new}", "--device", "gpu"], 2, "device gpu: expected a device that is here"),
        (["quantize", "{full}", "."], 2, "expected a folder that does not exist yet"),
        (["quantize", "{full}", "{full}/model_index.json/q"], 2, "expected a folder to write in, got a file"),
        (["quantize", "org/name", "{new}"], 1, "org/name: expected a path that exists here, or a repository"),
        (["quantize", "{full}", "{full}/q"], 1, "expected a folder outside the source"),
        (["inspect", "{new}"], 1, "expected a config.json of a transformer"),
        (["inspect", "org/name"], 1, "org/name: expected a path that exists here, or a repository"),
        (["inspect", "{full}/vae/diffusion_pytorch_model.safetensors"], 1, "expected an original checkpoint"),
        (["inspect", "{full}", "--kernels", "--capability", "70"], 1, "a compute capability from 80 on"),
        (["inspect", "{full}", "--capability", "90"], 2, "--capability: expected --kernels with it"),
        (["inspect", "{full}", "--config", "x"], 1, "config x: expected a configuration for original checkpoints"),
        (["quantize", "{full}", "{new}", "--config", "x"], 1, "config x: expected a configuration for original"),
        (["inspect", "{full}", "--video", "0x1x1"], 2, "--video: expected frames x height x width"),
        (["generate", "{new}", "--prompt", "x"], 2, "expected a pipeline's folder"),
        (["generate", "{full}", "--prompt", "x", "--device", "cuda:99"], 2, "device cuda:99: expected a device"),
        (
            ["generate", "{full}", "--prompt", "x", "--height", "40", "--width", "16"],
            2,
            "--height: expected a multiple",
        ),
        (["generate", "{full}", "--prompt", "x", "--frames", "6"], 2, "--frames: expected 1 more than a multiple of 4"),
        (["generate", "{full}", "--prompt", "x", "--guidance-2", "3"], 2, "expected arguments that WanPipeline takes"),
        (["generate", "{full}", "--prompt", "x", "--seed", str(2**70)], 2, "--seed: expected an integer of 64 bits"),
        (["generate", "{full}", "--prompt", "\udcff"], 2, "--prompt: expected text in UTF-8"),
        (["generate", "{full}", "--prompt", "x", "--guidance", "nan"], 2, "--guidance: expected a finite number, got"),
        (["generate", "{full}", "--prompt", "x", "--attention", "x"], 2, "attention: x: expected"),
        (["generate", "{full}", "--prompt", "x", "--teacache", "-1"], 2, "threshold: expected a finite number"),
        (["tune-delta", "{full}", "--prompt", "x"], 2, "expected a pipeline with a quantized transformer"),
        (["calibrate", "{full}", "{new}.bin", "--prompt", "x"], 2, "expected the ending .safetensors, got .bin"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(
    pipeline_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    places = {"{full}": str(pipeline_folder), "{new}": str(tmp_path / "new")}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["dvdq", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert (exit_.value.code, captured.out) == (code, "")
    # diffusers shows how it loads: so many a second, or where a machine is busy the seconds of one.
    lines = [line for line in captured.err.splitlines() if line and "it/s]" not in line and "s/it]" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_help_is_there_at_once_and_says_what_each_command_says() -> None:
    code = """
import sys, time
from dvdq_models.cli import main
try:
    main()
finally:
    print("SECONDS", time.process_time(), "torch" in sys.modules or "diffusers" in sys.modules)
"""
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    *_, seconds, heavy = done.stdout.split()
    assert (float(seconds) < 1.0, heavy) == (True, "False"), done.stdout
    for name in ("quantize", "generate", "inspect", "calibrate", "tune-delta"):
        help_ = run(app, [name, "--help"], terminal_width=200).stdout
        first = next(line.strip() for line in help_.splitlines()[3:] if line.strip())
        assert f"{name} " in done.stdout
        assert first in done.stdout


def test_a_video_is_not_replaced_and_not_lost(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is known before the first step, and where it is not."""

    def generate(out: str, *more: str) -> str:
        result = run(app, ["generate", str(pipeline_folder), "--prompt", PROMPT, "--out", out, *SMALL, *more])
        return "" if result.exit_code == 0 else str(result.exception)

    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    Path("nowhere").symlink_to("none/at/all")
    with monkeypatch.context() as patch:
        patch.setattr("dvdq_models.cli.generate.open_pipeline", None)
        for out, message in {
            "cat.gif": "expected the ending .mp4 or .mkv or .mov, got .gif",
            "cat.webm": "got .webm",
            "cat": "got none",
            "cat.json": "got .json",
            "file/cat.mp4": "file: expected a folder to write in, got a file",
            "nowhere/cat.mp4": "expected a folder to write in, got a link into nowhere",
            f"{'x' * 300}.mp4": "expected a name that can be written, got File name too long",
            "\udcff.mp4": "expected a path in UTF-8",
            "full": "got none",
        }.items():
            assert message in generate(out), out
    assert generate("cat.mp4") == ""
    before = Path("cat.mp4").read_bytes()
    assert "cat.mp4: expected a file that does not exist yet" in generate("cat.mp4", "--seed", "1")
    Path("dog.json").write_text("a trace that somebody wants")
    assert "dog.json: expected a file that does not exist yet" in generate("dog.mp4")
    assert Path("cat.mp4").read_bytes() == before
    assert generate("cat.mp4", "--seed", "1", "--overwrite") == ""
    assert Path("cat.mp4").read_bytes() != before

    def fails(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half a video")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dvdq_models.cli.generate.write_mp4", fails)
    said = generate("late.mp4")
    assert "No space left on device; its frames are in" in said
    (kept,) = tmp_path.glob("late.*.npy")
    assert kept.name in said
    assert np.load(kept).shape == (5, 16, 16, 3)
    assert not list(tmp_path.glob("*late*.mp4"))


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/]", "a b", "ü→δ 猫", "new\nline", "$(x)'\""])
def test_any_character_in_a_path(name: str, transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the source, of the destination and in what is said of them."""
    source, destination = tmp_path / name / "full", tmp_path / name / f"q {name}"
    source.parent.mkdir(parents=True)
    transformer.save_pretrained(tmp_path / "full")
    (tmp_path / "full").rename(source)
    for command in (["quantize", str(source), str(destination)], ["inspect", str(destination)]):
        result = run(app, command, terminal_width=200)
        assert result.exit_code == 0, result.output
    result = run(app, ["quantize", str(source), str(destination)])
    assert isinstance(result.exception, DvdqError)
    fail(str(result.exception))
    assert load(destination).config.num_layers == 2


def test_a_destination_that_safetensors_could_not_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match="expected a path in UTF-8"):
        quantize_checkpoint(tmp_path, tmp_path / "\udcff", Recipe.named("minmax"))


def test_what_an_output_cannot_show_does_not_end_a_command(transformer: Any, tmp_path: Path) -> None:
    transformer.save_pretrained(tmp_path / "full")
    done = subprocess.run(
        [sys.executable, "-m", "dvdq_models.cli", "quantize", "full", "δ", "--bits", "W4A6"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )
    assert b"linears by dvd-quant W4A6" in done.stdout
    assert done.stdout.startswith(b"?: ")


def test_errors_of_the_system_are_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(error: BaseException) -> tuple[Any, str]:
        def command() -> None:
            raise error

        with pytest.raises(SystemExit) as exit_:
            run_command(command)
        return exit_.value.code, capsys.readouterr().err

    assert failing(PermissionError(13, "Permission denied", "/x")) == (1, "error: Permission denied: /x\n")
    assert failing(torch.OutOfMemoryError("CUDA out of memory.\nMore.")) == (
        1,
        "error: out of memory: CUDA out of memory.\n",
    )
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_command(lambda: (_ for _ in ()).throw(RuntimeError("a fault of ours")))
