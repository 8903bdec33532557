"""One command from a pipeline to a page: all its parts are there, agree, and are not made twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dvdq_eval.cli import app
from dvdq_eval.evaluation import CONTENTS, MEASURED
from dvdq_eval.latency.results import Latency
from dvdq_eval.methods import FULL_PRECISION
from dvdq_eval.records import read_record
from dvdq_eval.videos.making import Maker
from dvdq_eval.videos.study import Job
from dvdq_models import DvdqError
from dvdq_models.moving_shapes import WAN

METHODS = ("--method", "dvd-quant:W4A6", "--method", "minmax:W4A4", "--method", "quarot:W4A4")


@pytest.fixture(scope="module")
def evaluated(tiny_wan: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    done = CliRunner().invoke(app, command(out))
    assert done.exit_code == 0, done.output
    return out


def command(out: Path) -> list[str]:
    return ["evaluate", "wan", "--videos", "2", "--steps", "4", "--shown", "1", "--out", str(out), *METHODS]


def test_all_parts_are_there(evaluated: Path) -> None:
    assert {path.name for path in evaluated.iterdir()} == {MEASURED, "report.html", "videos"}
    assert {path.name for path in (evaluated / MEASURED).iterdir()} == CONTENTS
    rows = json.loads((evaluated / MEASURED / "methods.json").read_text())["rows"]
    assert [(row["label"], row["bits"]) for row in rows] == [
        (FULL_PRECISION.label, ""),
        ("DVD-Quant", "W4A6"),
        ("MinMax", "W4A4"),
        ("QuaRot", "W4A4"),
    ]
    assert [row["against"] for row in rows] == [None, None, None, "MinMax W4A4"]


def test_a_videos_time_is_of_the_steps_that_its_trace_ran(evaluated: Path) -> None:
    latency = read_record(evaluated / MEASURED / "latency.json", Latency)
    (mixed,) = (video for video in latency.videos if video.trace != "constant")
    (record,) = (evaluated / "videos").glob(f"*/{mixed.trace}")
    trace = json.loads(record.read_text())["trace"]
    bits = [step["bits"] for step in trace]
    assert mixed.steps_at == {str(width): bits.count(width) for width in sorted(set(bits), reverse=True)}
    assert all(sum(video.steps_at.values()) == 4 for video in latency.videos)


def test_the_page_shows_every_method(evaluated: Path) -> None:
    page = (evaluated / "report.html").read_text()
    assert all(name in page for name in ("Full precision", "DVD-Quant W4A6", "MinMax W4A4", "QuaRot W4A4"))
    assert page.count("data:video/mp4") == 4


def test_videos_that_are_there_are_not_made_again(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maker, "make", lambda *_: pytest.fail("a video was made again"))
    done = CliRunner().invoke(app, command(evaluated))
    assert done.exit_code == 0, done.output


def test_a_video_that_fails_is_an_error_before_anything_is_measured(
    tiny_wan: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Maker, job: Job) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Maker, "make", refuse)
    done = CliRunner().invoke(app, command(tmp_path))
    assert isinstance(done.exception, DvdqError)
    assert "expected 8 videos, got 8 .failed.json" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--settings: expected num_frames, height, width, got no num_frames"),
        (["--settings", '{"num_frames": 17, "height": 64, "width": 60}'], "evaluate: --video: expected whole latents"),
        (["--settings", '{"num_frames": 17, "height": 64, "width": 64}'], "--prompts: expected prompts besides those"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_first_video(given: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    options = ["--prompts", str(tmp_path / "prompts.txt"), "--videos", "2", "--out", str(tmp_path / "out"), *METHODS]
    done = CliRunner().invoke(app, ["evaluate", str(WAN.folder), *options, *given])
    assert isinstance(done.exception, DvdqError)
    assert message in str(done.exception)
    assert not list((tmp_path / "out").rglob("*.mkv"))
