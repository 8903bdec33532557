"""The ``dvdq`` command as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dvdq_models.cli import app, main
from dvdq_models.video import read_mp4

run = CliRunner().invoke
PROMPT = "a red circle moves left quickly over a gray background"
SMALL = ["--height", "16", "--width", "16", "--frames", "5", "--steps", "4", "--fps", "8", "--json"]


def test_quantize_inspect_generate(pipeline_folder: Path, tmp_path: Path) -> None:
    destination, video = tmp_path / "q", tmp_path / "out" / "video.mp4"
    result = run(
        app, ["quantize", str(pipeline_folder), str(destination), "--bits", "W4A6", "--delta", "0.5", "--json"]
    )
    assert result.exit_code == 0, result.output
    quantized = json.loads(result.stdout)
    result = run(app, ["inspect", str(destination), "--json"])
    assert result.exit_code == 0, result.output
    inspected = json.loads(result.stdout)
    assert inspected["recipe"]["schedule"] == {"kind": "delta", "low": 4, "high": 8, "delta": 0.5, "seed": 0} | {
        "measured": "conditional"
    }
    assert inspected["bytes_after"] == quantized["bytes_after"]
    result = run(app, ["generate", str(destination), "--prompt", PROMPT, "--out", str(video), *SMALL])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads(video.with_suffix(".json").read_text())
    assert len(record["trace"]) == 4
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
    ("arguments", "message"),
    [
        (["quantize", "{full}", "{new}", "--recipe", "gptq"], "expected one of minmax"),
        (["quantize", "{full}", "{new}", "--bits", "W4"], "expected W{weight}A{activation}"),
        (["quantize", "{full}", "{new}", "--bits", "W4A8", "--delta", "1"], "expected a schedule that switches"),
        (["quantize", "{full}", "{full}"], "expected a folder that does not exist yet"),
        (["quantize", "{new}", "{new}"], "expected a pipeline or transformer folder"),
        (["inspect", "{new}"], "expected a config.json of a transformer"),
        (["inspect", "{full}", "--kernels", "--capability", "70"], "a compute capability from 80 on"),
        (["generate", "{new}", "--prompt", "x"], "expected a pipeline folder"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(
    pipeline_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"{full}": str(pipeline_folder), "{new}": str(tmp_path / "new")}
    monkeypatch.setattr(sys, "argv", ["dvdq", *(places.get(a, a) for a in arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
    assert not (tmp_path / "new").exists()


def test_the_installed_command_answers() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dvdq_models.cli", "--help"], capture_output=True, text=True, check=True
    )
    for subcommand in ("quantize", "generate", "inspect"):
        assert subcommand in result.stdout
