"""VBench's place taken by a script: what is asked of it, what is kept of what it says, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dvdq_eval.cli.vbench import app
from dvdq_eval.methods import FULL_PRECISION, Method, parse_methods
from dvdq_eval.vbench import installed
from dvdq_eval.vbench.scoring import scores_of
from dvdq_eval.vbench.weights import FILES, MARKER
from dvdq_eval.videos.records import MethodRecord, VideoRecord
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Job, Study
from dvdq_reference.spec.errors import DvdqError

METHODS = parse_methods("test", ["dvd-quant:W4A4"])
VIDEOS = ["--method", "dvd-quant:W4A4", "--videos", "3", "--steps", "4"]

VBENCH = """
import json, os, sys
from pathlib import Path

assert sys.flags.isolated
request = json.loads(Path(sys.argv[1]).read_text())
def tell(**values):
    print(json.dumps(values), flush=True)

if request["operation"] == "describe":
    tell(versions={"vbench": "0.1.5", "torch": "2.13.0", "torchvision": "0.28.0", "python": "3.11.9"}, prompts=[])
    sys.exit()
paths = [path for entry in request["entries"] for path in entry["video_list"]]
assert all(Path(path).stat().st_size > 0 for path in paths), paths
with open(os.environ["ASKED"], "a") as file:
    file.write(json.dumps(request) + "\\n")
tell(done=0)
values = {path: (number + 1) / 8 for number, path in enumerate(paths)}
"""
ANSWER = "tell(done=len(paths))\ntell(score=sum(values.values()) / len(values), videos=values)\n"


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.bundled("wan", videos=3, steps=4)


def record_of(job: Job) -> VideoRecord:
    return VideoRecord(prompt=job.prompt, seed=job.seed, seconds=1.0, commit=None)


@pytest.fixture
def place(
    tmp_path: Path, study: Study, described: Callable[[Method], MethodRecord], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with noise for videos, in place of what two methods would have made, and all weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VBENCH_PYTHON", sys.executable)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    for file in (file for files in FILES.values() for file in files):
        path = tmp_path / "weights" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.address)
    for method in METHODS:
        folder = Store(Path("out/videos"), study).method(method)
        folder.describe(described(method))
        for job in study.jobs:
            rng = np.random.default_rng(job.number)
            frames = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
            folder.keep(job, frames, np.zeros((1, 1, 2, 2), dtype=np.float32), record_of(job))
    return tmp_path


@pytest.fixture
def vbench(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """VBench is a script, which ends with other lines if it is called with some."""

    def replace(lines: str) -> None:
        path = place / "instead.py"
        path.write_text(VBENCH + lines)
        monkeypatch.setattr(installed, "_RUNNER", path)

    replace(ANSWER)
    return replace


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def score(*arguments: str, dimension: str = "imaging_quality") -> Result:
    return run("score", *VIDEOS, "--dimension", dimension, *arguments)


def error_of(result: Result) -> str:
    assert isinstance(result.exception, DvdqError), result.exception
    return str(result.exception)


def asked(place: Path) -> list[dict[str, Any]]:
    path = place / "asked"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def folder_of(study: Study, number: int = 0) -> MethodFolder:
    return Store(Path("out/videos"), study).method(METHODS[number])


def test_every_method_is_scored_by_one_process_a_dimension(
    place: Path, vbench: Callable[[str], None], study: Study
) -> None:
    assert score("--dimension", "motion_smoothness", "--fps", "16").exit_code == 0
    requests = asked(place)
    assert [request["dimension"] for request in requests] == ["imaging_quality", "motion_smoothness"] * 2
    assert [entry["prompt_en"] for entry in requests[0]["entries"]] == list(study.prompts)
    assert requests[0]["cache"] == str(place / "weights")
    names = [job.name for job in study.jobs]
    for folder in (folder_of(study), folder_of(study, 1)):
        scores = scores_of(folder)
        assert list(scores) == ["imaging_quality", "motion_smoothness"]
        imaging, motion = scores.values()
        # VBench gives imaging quality 0 to 100 a video, but 0 to 1 over all.
        assert imaging.videos == dict(zip(names, (0.00125, 0.0025, 0.00375), strict=True))
        assert motion.videos == dict(zip(names, (0.125, 0.25, 0.375), strict=True))
        assert imaging.score == motion.score == 0.25
        assert (motion.fps, motion.codec, motion.failed, motion.path_check) == (16.0, "ffv1", (), False)
        assert motion.versions["vbench"] == "0.1.5"
        assert motion.versions["device"] == "cpu"


def test_what_is_scored_stays_until_something_that_decides_it_changes(
    place: Path, vbench: Callable[[str], None], study: Study
) -> None:
    score()
    assert len(asked(place)) == 2
    score()
    assert len(asked(place)) == 2
    score("--fps", "16")
    assert len(asked(place)) == 4
    (place / "weights" / FILES["imaging_quality"][0].path).write_text("others")
    score("--fps", "16")
    assert len(asked(place)) == 6
    job = study.jobs[0]
    black = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    folder_of(study).keep(job, black, np.zeros((1, 1, 2, 2), dtype=np.float32), record_of(job))
    score("--fps", "16")
    assert len(asked(place)) == 7


def test_missing_videos_are_an_error_that_counts_them(place: Path, vbench: Callable[[str], None], study: Study) -> None:
    last = study.jobs[-1]
    (folder_of(study, 1).folder / f"{last.name}.json").unlink()
    message = error_of(score())
    assert "DVD-Quant W4A4: imaging_quality" in message
    assert "expected 3 videos" in message
    assert "got 2, 0 failed and 1 missing" in message
    assert asked(place) == []
    assert score("--partial").exit_code == 0
    assert [len(request["entries"]) for request in asked(place)] == [3, 2]
    run("report", *VIDEOS)
    text = Path("out/vbench/vbench.md").read_text()
    assert "(2, 1 missing)" in text
    assert "(3)" in text


def test_no_videos_are_an_error_even_for_a_part(place: Path, vbench: Callable[[str], None]) -> None:
    message = error_of(run("score", "--method", "quarot:W4A4", "--videos", "3", "--steps", "4", "--partial",
                           "--dimension", "imaging_quality"))  # fmt: skip
    assert "QuaRot W4A4: imaging_quality" in message
    assert "got 0, 0 failed and 3 missing" in message


def test_failed_videos_are_counted_and_reported(place: Path, vbench: Callable[[str], None], study: Study) -> None:
    job, folder = study.jobs[1], folder_of(study, 1)
    (folder.folder / f"{job.name}.json").unlink()
    folder.fail(job, "RuntimeError: out of memory")
    assert score().exit_code == 0
    found = scores_of(folder)["imaging_quality"]
    assert found.failed == (job.name,)
    assert len(found.videos) == 2
    run("report", *VIDEOS)
    written = json.loads(Path("out/vbench/vbench.json").read_text())
    cell = written["rows"][1]["cells"]["imaging_quality"]
    assert (cell["videos"], cell["failed"], cell["missing"]) == (2, 1, 0)
    assert "(2, 1 failed)" in Path("out/vbench/vbench.md").read_text()


def test_what_is_no_number_is_null_and_counted(place: Path, vbench: Callable[[str], None], study: Study) -> None:
    vbench("values[paths[0]] = None\ntell(score=None, videos=values)\n")
    assert score(dimension="motion_smoothness").exit_code == 0
    found = scores_of(folder_of(study))["motion_smoothness"]
    assert found.score is None
    assert list(found.videos.values()) == [None, 0.25, 0.375]
    run("report", *VIDEOS)
    assert "NaN (2, 1 NaN)" in Path("out/vbench/vbench.md").read_text()


def test_a_video_that_vbench_leaves_out_has_no_value(place: Path, vbench: Callable[[str], None], study: Study) -> None:
    vbench("del values[paths[1]]\n" + ANSWER)
    assert score(dimension="motion_smoothness").exit_code == 0
    assert list(scores_of(folder_of(study))["motion_smoothness"].videos.values()) == [0.125, None, 0.375]


def test_a_failure_of_vbench_is_one_error_with_its_last_words(
    place: Path, vbench: Callable[[str], None], study: Study
) -> None:
    vbench("sys.stderr.write('INFO a judge\\nValueError: no frames\\n')\nsys.exit(3)")
    message = error_of(score())
    assert "Full precision: imaging_quality" in message
    assert "got exit status 3 | INFO a judge | ValueError: no frames" in message
    assert scores_of(folder_of(study)) == {}
    vbench("")
    assert "got an end without one" in error_of(score())


def test_silence_is_an_error_after_the_timeout(place: Path, vbench: Callable[[str], None]) -> None:
    vbench("import time\ntime.sleep(60)")
    assert "got nothing for 1 s" in error_of(score("--timeout", "1"))


def test_missing_weights_are_one_error_with_their_addresses(place: Path, vbench: Callable[[str], None]) -> None:
    gone = (*FILES["aesthetic_quality"], FILES["motion_smoothness"][0])
    for file in gone:
        (place / "weights" / file.path).unlink()
    message = error_of(score("--dimension", "aesthetic_quality", "--dimension", "motion_smoothness"))
    assert "3 missing" in message
    for file in gone:
        assert f"{file.path} from {file.address}" in message
    assert FILES["imaging_quality"][0].path not in message
    assert asked(place) == []


def test_planted_weights_make_a_path_check_whose_score_is_not_shown(
    place: Path, vbench: Callable[[str], None], study: Study
) -> None:
    (place / "weights" / MARKER).write_text("random")
    assert score("--dimension", "temporal_flickering").exit_code == 0
    found = scores_of(folder_of(study))
    assert found["imaging_quality"].path_check
    assert not found["temporal_flickering"].path_check
    result = run("report", *VIDEOS)
    assert "path check" in result.stdout
    row = next(line for line in Path("out/vbench/vbench.md").read_text().splitlines() if line.startswith("| Full"))
    assert row == "| Full precision |  | path check (3) | 25.00 ± 12.50 (3) |"
    cells = json.loads(Path("out/vbench/vbench.json").read_text())["rows"][0]["cells"]
    assert cells["imaging_quality"]["score"] is cells["imaging_quality"]["interval"] is None
    assert cells["temporal_flickering"]["score"] == 0.25


def test_a_path_check_never_replaces_a_score(place: Path, vbench: Callable[[str], None], study: Study) -> None:
    score()
    before = scores_of(folder_of(study))
    (place / "weights" / MARKER).write_text("random")
    assert "expected no score by real weights for a path check to replace" in error_of(score())
    assert scores_of(folder_of(study)) == before


def test_a_report_has_the_papers_rows_in_its_columns(place: Path, vbench: Callable[[str], None]) -> None:
    score("--dimension", "motion_smoothness")
    run("report", *VIDEOS, "--dimension", "motion_smoothness")
    lines = Path("out/vbench/vbench.md").read_text().splitlines()
    assert "| method | bits | motion |" in lines
    assert "| paper: DVD-Quant | W4A4 | 99.15 |" in lines
    run("report", *VIDEOS)
    assert "| paper: DVD-Quant | W4A4 | 61.82 | 99.15 |" in Path("out/vbench/vbench.md").read_text().splitlines()


def test_a_report_leaves_out_scores_of_other_videos(place: Path, vbench: Callable[[str], None]) -> None:
    score()
    run("report", "--videos", "2", "--steps", "4")
    assert "| Full precision |  |" in Path("out/vbench/vbench.md").read_text().splitlines()


def test_videos_too_small_for_a_judge_are_refused_before_it_runs(place: Path, vbench: Callable[[str], None]) -> None:
    assert "expected sides of 121 pixels or more, got 16" in error_of(score(dimension="dynamic_degree"))
    assert asked(place) == []


@pytest.mark.parametrize(
    ("dimension", "why"), [("sharpness", "expected one of aesthetic_quality"), ("scene", "--prompts standard")]
)
def test_dimensions_that_cannot_be_scored_are_refused(
    place: Path, vbench: Callable[[str], None], dimension: str, why: str
) -> None:
    assert why in error_of(score(dimension=dimension))


def test_setup_says_what_is_there_and_what_is_missing(place: Path, vbench: Callable[[str], None]) -> None:
    (place / "weights" / "amt_model/amt-s.pth").unlink()
    result = run("setup")
    assert "vbench 0.1.5" in result.stdout
    assert result.stdout.count("ready") == 8
    assert "amt-s.pth" in result.stdout
    assert asked(place) == []


def test_videos_are_generated_where_scores_look_for_them(
    place: Path, vbench: Callable[[str], None], study: Study
) -> None:
    job, folder = study.jobs[0], Store(Path("out/videos"), study).method(FULL_PRECISION)
    for path in folder.folder.iterdir():
        path.unlink()
    result = run("generate", "--videos", "3", "--steps", "4", "--dimension", "imaging_quality")
    assert result.exit_code == 0, result.output
    assert folder.frames(job).shape == (17, 64, 64, 3)
    assert score().exit_code == 0
