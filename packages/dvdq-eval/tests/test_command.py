"""``dvdq demo`` as Typer sees it, its run replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from dvdq_eval.demo import command
from dvdq_models.moving_shapes import HUNYUAN_VIDEO, WAN, Bundled


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def run(pipeline: object, out: Path, scenes: Any, **options: Any) -> object:
        options["pipeline"] = pipeline
        options["tell"]("Generating", 1, 2)
        options["tell"]("Generating", 2, 2)
        made.append({"out": out, "scenes": scenes, **options})
        return outcome.results

    monkeypatch.setattr(command, "run_demo", run)
    monkeypatch.setattr(Bundled, "load", lambda self: self)
    return made


@pytest.fixture
def app() -> typer.Typer:
    built = typer.Typer()
    built.command("demo")(command.demo)
    return built


def test_defaults_are_the_models(calls: list[dict[str, Any]], app: typer.Typer) -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0, done.output
    [call] = calls
    assert call["out"] == Path("out/demo")
    assert len(call["scenes"]) == 4
    assert call["pipeline"] is WAN
    assert call["settings"] == WAN.generation
    assert "DVD-Quant W4A6" in done.stdout
    assert "report.html" in done.stdout


def test_options_reach_the_run(calls: list[dict[str, Any]], app: typer.Typer, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        options = ["--out", str(tmp_path), "--steps", "7", "--seed", "5", "--prompts", "2", "--threads", "1", "--json"]
        options += ["--family", "hunyuan-video"]
        done = CliRunner().invoke(app, options)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    [call] = calls
    assert call["pipeline"] is HUNYUAN_VIDEO
    assert (call["out"], call["seed"], len(call["scenes"])) == (tmp_path, 5, 2)
    assert call["settings"] == {**HUNYUAN_VIDEO.generation, "num_inference_steps": 7}
    assert json.loads(done.stdout)["schema"] == 1
