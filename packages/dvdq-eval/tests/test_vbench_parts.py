"""The parts that VBench's runs are made of: prompts, staged files, its environment, and what its Python runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from dvdq_eval.cli import vbench as command
from dvdq_eval.cli.vbench import VBenchOptions
from dvdq_eval.paper import PAPER
from dvdq_eval.vbench import installed, runner
from dvdq_eval.vbench import plant as plant_script
from dvdq_eval.vbench.dimensions import DIMENSIONS, StandardStudy, chosen, entry, jobs_of, standard_prompts
from dvdq_eval.vbench.dimensions import PAPER as PAPERS_DIMENSIONS
from dvdq_eval.vbench.study import smaller_side, stage
from dvdq_eval.vbench.weights import FILES, MARKER
from dvdq_models.moving_shapes import WAN
from dvdq_models.running.placement import Offload
from dvdq_models.running.video import read_mp4, write_lossless
from dvdq_reference.spec.errors import DvdqError


def listed() -> list[dict[str, Any]]:
    """A list as VBench's: as many prompts of each dimension, some for three, one listed twice, two but for case."""
    groups: dict[tuple[str, ...], int] = {
        ("temporal_flickering",): 75,
        ("scene", "background_consistency"): 86,
        ("overall_consistency", "aesthetic_quality", "imaging_quality"): 93,
        ("subject_consistency", "dynamic_degree", "motion_smoothness"): 72,
        ("human_action",): 9,
    }
    found: list[dict[str, Any]] = []
    for names, count in groups.items():
        for number in range(count):
            line: dict[str, Any] = {"prompt_en": f"{names[0]} {number}", "dimension": list(names)}
            if names[0] == "scene":
                line["auxiliary_info"] = {"scene": {"scene": {"scene": f"place {number}"}}}
            found.append(line)
    found[-1] = {"prompt_en": "overall_consistency 0", "dimension": ["appearance_style"]}
    found[75 + 86 + 1]["prompt_en"] = "OVERALL_consistency 0"
    return found


def standard(*dimensions: str, first: int | None = None) -> StandardStudy:
    prompts = standard_prompts(listed())
    return StandardStudy(
        "a pipeline",
        WAN.folder,
        {},
        tuple(prompt.text for prompt in prompts),
        (),
        samples=5,
        standard=prompts,
        dimensions=tuple(DIMENSIONS[name] for name in dimensions),
        first=first,
    )


def test_the_papers_dimensions_are_its_tables_columns() -> None:
    assert [DIMENSIONS[name].column for name in PAPERS_DIMENSIONS] == list(PAPER["table-1"].columns[2:])
    assert FILES.keys() == DIMENSIONS.keys()
    assert [name for name, files in FILES.items() if not files] == ["temporal_flickering"]
    assert [d.name for d in chosen("test", (), standard=True)] == list(PAPERS_DIMENSIONS)
    assert [d.name for d in chosen("test", (), standard=False)] == [d for d in PAPERS_DIMENSIONS if d != "scene"]


def test_vbenchs_prompts_are_251_of_the_papers_and_those_of_flickering() -> None:
    prompts = standard_prompts(listed())
    assert len(prompts) == 251 + 75
    assert all(prompt.about.keys() == {"temporal_flickering"} for prompt in prompts[251:])
    texts = [prompt.text for prompt in prompts]
    assert {"overall_consistency 0", "OVERALL_consistency 0"} < set(texts)
    assert len(set(texts)) == len(texts)
    assert len(standard(*PAPERS_DIMENSIONS).jobs) == 1255


def test_another_list_than_vbenchs_is_refused() -> None:
    with pytest.raises(DvdqError, match="VBench's 86 prompts of scene, got 85"):
        standard_prompts([line for line in listed() if line["prompt_en"] != "scene 3"])


def test_which_prompts_are_made_changes_the_noise_of_none() -> None:
    every = {job.name for job in standard(*DIMENSIONS).jobs}
    some = standard("scene", "subject_consistency", first=2)
    assert len(some.jobs) == 2 * 2 * 5
    assert {job.name for job in some.jobs} < every
    assert some.key == standard("imaging_quality").key
    scene = jobs_of(some, DIMENSIONS["scene"])
    assert [job.prompt for job in scene[::5]] == ["scene 0", "scene 1"]
    assert len({job.name.lower() for job in standard(*DIMENSIONS).jobs}) == 326 * 5


def test_an_entry_says_what_is_to_be_seen() -> None:
    study = standard("scene")
    job = study.jobs[7]
    assert entry(study, job, DIMENSIONS["scene"], "a.mp4") == {
        "prompt_en": "scene 1",
        "dimension": ["scene"],
        "video_list": ["a.mp4"],
        "auxiliary_info": {"scene": {"scene": {"scene": "place 1"}}},
    }
    assert "auxiliary_info" not in entry(study, job, DIMENSIONS["background_consistency"], "a.mp4")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command is given for VBench's prompts on a bundled pipeline, its list taken from here."""
    monkeypatch.setattr(command, "vbench_python", lambda: Path(sys.executable))
    monkeypatch.setattr(command, "Installed", lambda python: SimpleNamespace(prompts=standard_prompts(listed())))
    options = ("method", "dimension", "preparing", "videos", "samples", "steps", "settings")
    return dict.fromkeys(options) | {
        "pipeline": "wan",
        "prompts": "standard",
        "store": tmp_path / "store",
        "device": "cpu",
        "offload": Offload.NONE,
    }


def test_a_study_of_vbenchs_prompts_runs_as_its_pipeline_does(given: dict[str, Any]) -> None:
    asked = VBenchOptions(**{**given, "settings": '{"height": 128}', "steps": 4, "dimension": ["scene"]}).ask("test")
    assert len(asked.study.jobs) == 86 * 5
    assert asked.study.settings["height"] == 128
    assert asked.study.settings["num_inference_steps"] == 4
    assert asked.study.settings["width"] == WAN.generation["width"]
    assert len(asked.study.preparing) > 0
    assert asked.folder(asked.methods[0]) is None
    few = VBenchOptions(**{**given, "videos": 1, "samples": 2}).ask("test")
    assert [d.name for d in few.dimensions] == list(PAPERS_DIMENSIONS)
    assert [job.prompt for job in few.study.jobs[::2]] == ["scene 0", "overall_consistency 0", "subject_consistency 0"]


def test_other_prompts_have_other_defaults(given: dict[str, Any], tmp_path: Path) -> None:
    own = VBenchOptions(**{**given, "prompts": None, "settings": '{"height": 128}', "videos": 2}).ask("test")
    assert len(own.study.jobs) == 2
    assert own.study.settings["height"] == 128
    with pytest.raises(DvdqError, match="--preparing: expected none for a bundled pipeline"):
        VBenchOptions(**{**given, "preparing": tmp_path / "a.txt"}).ask("test")


def test_a_staged_video_has_the_very_frames_at_another_rate(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 18, 24, 3), dtype=np.uint8)
    write_lossless(tmp_path / "a.mkv", frames)
    for fps in (8.0, 23.976):
        stage(tmp_path / "a.mkv", tmp_path / "a.mp4", fps)
        assert read_mp4(tmp_path / "a.mp4").tobytes() == frames.tobytes()
        with av.open(str(tmp_path / "a.mp4")) as opened:
            assert "mp4" in opened.format.name
            rate = opened.streams.video[0].average_rate
            assert rate is not None
            assert float(rate) == pytest.approx(fps, abs=1e-3)
    assert smaller_side(tmp_path / "a.mkv") == 18


def test_everything_of_the_environment_is_pinned_once() -> None:
    pinned = installed.requirements()
    assert pinned[:2] == ("torch==2.13.0", "torchvision==0.28.0")
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in pinned), pinned
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pinned]
    assert len(set(names)) == len(names)
    assert {"vbench", "transformers", "tokenizers", "decord", "setuptools"} <= set(names)


@pytest.fixture
def no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VBENCH_PYTHON", raising=False)
    monkeypatch.setenv("DVDQ_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def an_interpreter(folder: Path, version: str) -> Path:
    """A program that answers as a Python of some version does."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter's place is taken by a shell script")
def test_another_python_is_refused_before_anything_is_made(no_environment: Path) -> None:
    other = an_interpreter(no_environment, "3.13")
    with pytest.raises(DvdqError, match=r"expected a Python 3\.11: --python PATH names another, got .*is 3\.13"):
        installed.set_up(other)
    with pytest.raises(DvdqError, match="--python: expected an interpreter"):
        installed.set_up(no_environment / "absent")
    assert not (no_environment / "cache").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter's place is taken by a shell script")
def test_the_environment_is_made_from_the_python_that_is_named(
    no_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, made = an_interpreter(no_environment, "3.11"), []
    monkeypatch.setattr(installed, "make_environment", lambda *arguments: made.append(arguments) or base)
    assert installed.set_up(base) == base
    [(_, folder, installs, used)] = made
    assert folder.parent == no_environment / "cache"
    assert folder.name.startswith("vbench-")
    assert (installs, used) == (installed.INSTALLS, base)
    monkeypatch.setenv("VBENCH_PYTHON", sys.executable)
    assert installed.set_up(base) == Path(sys.executable)
    assert len(made) == 1


def test_without_an_environment_the_error_says_how_to_make_it(no_environment: Path) -> None:
    with pytest.raises(DvdqError, match="expected what `dvdq-eval vbench setup` makes, got nothing"):
        installed.vbench_python()


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("subprocess.Popen", (None, ["wget", "-P", "folder", "https://example.org/a.pth"], None, None)),
        ("subprocess.Popen", (None, ["/usr/bin/git", "clone", "https://example.org/a"], None, None)),
        ("subprocess.Popen", (None, "curl https://example.org", None, None)),
        ("os.system", (b"wget https://example.org",)),
        ("socket.connect", (None, ("192.0.2.1", 443))),
        ("socket.connect", (None, ("2001:db8::1", 443, 0, 0))),
        ("socket.sendto", (None, ("192.0.2.1", 53))),
        ("socket.getaddrinfo", ("example.org", 443, 0, 0, 0)),
        ("socket.gethostbyname", ("example.org",)),
    ],
)
def test_what_reaches_for_the_network_is_refused(event: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(runner.DownloadRefused):
        runner.refuse_downloads(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("subprocess.Popen", (None, ["uname", "-p"], None, None)),
        ("socket.connect", (None, ("127.0.0.1", 29500))),
        ("socket.connect", (None, ("::1", 29500, 0, 0))),
        ("socket.connect", (None, "/tmp/a.socket")),
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 0, 0, 0, 0)),
        ("open", ("wget", "r", 0)),
    ],
)
def test_what_stays_on_this_machine_is_allowed(event: str, arguments: tuple[Any, ...]) -> None:
    runner.refuse_downloads(event, arguments)


def test_the_hook_stops_python_itself() -> None:
    code = f"""
import runpy, subprocess, sys, urllib.request
script = runpy.run_path({runner.__file__!r})
sys.addaudithook(script["refuse_downloads"])
for attempt in (
    lambda: subprocess.run(["wget", "https://example.org"]),
    lambda: urllib.request.urlopen("http://192.0.2.1/a.pth", timeout=5),
):
    try:
        attempt()
    except script["DownloadRefused"] as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == [
        "no downloads here: wget https://example.org",
        "no downloads here: the address of 192.0.2.1",
    ], done.stderr


def test_what_runs_in_vbenchs_python_needs_nothing_of_this_project() -> None:
    for script, foreign in ((runner, set()), (plant_script, {"torch"})):
        tree = ast.parse(Path(script.__file__).read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == foreign


@pytest.mark.parametrize(("value", "number"), [(True, 1.0), (0.5, 0.5), (float("nan"), None), (float("inf"), None)])
def test_what_vbench_says_is_a_finite_number_or_nothing(value: Any, number: float | None) -> None:
    assert runner.number(value) == number


def test_a_planted_matrix_is_random_and_takes_no_space() -> None:
    torch.manual_seed(0)
    state = {"a.weight": torch.zeros(256, 400), "norm.weight": torch.ones(8), "index": torch.arange(6).reshape(2, 3)}
    planted = plant_script.windows(state)
    assert {name: tensor.shape for name, tensor in planted.items()} == {name: t.shape for name, t in state.items()}
    assert planted["a.weight"].untyped_storage().nbytes() == 4 * (256 + 400 - 1)
    assert float(planted["a.weight"].std()) == pytest.approx(400**-0.5, rel=0.2)
    assert torch.equal(planted["norm.weight"], state["norm.weight"])
    assert torch.equal(planted["index"], state["index"])


def test_planted_weights_are_marked_and_never_mixed_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "plant.py"
    script.write_text(
        "import json, sys\nfrom pathlib import Path\n"
        "(Path(json.loads(Path(sys.argv[1]).read_text())['cache']) / 'a.pth').write_text('random')\n"
    )
    monkeypatch.setattr(installed, "_SCRIPT", script)
    installed.plant(Path(sys.executable), tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a.pth", MARKER}
    script.unlink()
    installed.plant(Path(sys.executable), tmp_path / "new")
    (tmp_path / "real" / "clip_model").mkdir(parents=True)
    with pytest.raises(DvdqError, match="one that also holds clip_model"):
        installed.plant(Path(sys.executable), tmp_path / "real")
    with pytest.raises(DvdqError, match="expected random weights, got exit status 2"):
        installed.plant(Path(sys.executable), tmp_path / "another")
    assert not (tmp_path / "another").exists()
