"""``dvdq demo`` as Typer sees it, its run replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from dvdq_eval.cli import demo as command
from dvdq_eval.progress import Tell
from dvdq_eval.videos.study import Study
from dvdq_models.moving_shapes import HUNYUAN_VIDEO, WAN


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> list[tuple[Study, Path]]:
    made: list[tuple[Study, Path]] = []

    def run(study: Study, out: Path, tell: Tell) -> object:
        tell("Generating", 1, 2)
        tell("Generating", 2, 2)
        made.append((study, out))
        return outcome.results

    monkeypatch.setattr(command, "run_demo", run)
    return made


@pytest.fixture
def app() -> typer.Typer:
    built = typer.Typer()
    built.command("demo")(command.demo)
    return built


def test_defaults_are_the_models(calls: list[tuple[Study, Path]], app: typer.Typer) -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0, done.output
    [(study, out)] = calls
    assert out == Path("out/demo")
    assert len(study.prompts) == 4
    assert study.folder == WAN.folder
    assert study.settings == WAN.generation
    assert "DVD-Quant W4A6" in done.stdout
    assert "report.html" in done.stdout


def test_options_reach_the_run(calls: list[tuple[Study, Path]], app: typer.Typer, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        options = ["--out", str(tmp_path), "--steps", "7", "--seed", "5", "--prompts", "2", "--threads", "1", "--json"]
        options += ["--family", "hunyuan-video"]
        done = CliRunner().invoke(app, options)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    [(study, out)] = calls
    assert study.folder == HUNYUAN_VIDEO.folder
    assert (out, study.first_seed, len(study.prompts)) == (tmp_path, 5, 2)
    assert study.settings == {**HUNYUAN_VIDEO.generation, "num_inference_steps": 7}
    assert json.loads(done.stdout)["schema"] == 3
