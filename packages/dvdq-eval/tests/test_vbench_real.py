"""VBench's own code, where ``dvdq-eval vbench setup`` has put it; elsewhere left out, as it takes 1.9 GB."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.quality import temporal_flickering
from dvdq_eval.vbench.dimensions import DIMENSIONS, StandardStudy
from dvdq_eval.vbench.installed import Installed, vbench_python
from dvdq_eval.vbench.scoring import Judges, score_all, scores_of
from dvdq_eval.vbench.study import Asked
from dvdq_eval.vbench.weights import FILES
from dvdq_eval.videos.records import MethodRecord, VideoRecord
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models.moving_shapes import WAN
from dvdq_reference.spec.errors import DvdqError


def find() -> Installed | None:
    try:
        return Installed(vbench_python())
    except DvdqError:
        return None


INSTALLED = find()
pytestmark = pytest.mark.skipif(INSTALLED is None, reason="no environment with VBench")


@pytest.fixture
def real() -> Installed:
    assert INSTALLED is not None
    return INSTALLED


def test_its_prompts_are_those_that_we_count(real: Installed) -> None:
    study = StandardStudy(
        "wan",
        WAN.folder,
        {},
        tuple(prompt.text for prompt in real.prompts),
        (),
        samples=5,
        standard=real.prompts,
        dimensions=tuple(d for d in DIMENSIONS.values() if d.column),
    )
    assert real.versions["vbench"] == "0.1.5"
    assert len(study.jobs) == 1255
    assert {"A fantasy landscape", "a fantasy landscape"} < {job.prompt for job in study.jobs}


def test_its_code_names_the_files_and_addresses_that_we_do(real: Installed) -> None:
    find_it = "import importlib.util as u; print(u.find_spec('vbench').origin)"
    done = subprocess.run([str(real.python), "-I", "-c", find_it], capture_output=True, text=True, check=True)
    package = Path(done.stdout.strip()).parent
    code = "\n".join(
        (package / name).read_text()
        for name in (
            "utils.py",
            "aesthetic_quality.py",
            "overall_consistency.py",
            "third_party/ViCLIP/simple_tokenizer.py",
        )
    )
    named = {file for files in FILES.values() for file in files if not file.path.startswith("bert-base-uncased/")}
    assert {file.address for file in named if file.address not in code} == set()
    # The folder of DINO's code stands there without the file in it.
    assert {file.path for file in named if file.path.removesuffix("hubconf.py").rpartition("/")[2] not in code} == set()
    assert "from_pretrained('bert-base-uncased'" in (package / "third_party/tag2Text/tag2text.py").read_text()


def test_its_flickering_is_ours_on_the_frames_that_we_kept(
    real: Installed, described: Callable[[Method], MethodRecord], tmp_path: Path
) -> None:
    study = Study.bundled("wan", videos=2, steps=4)
    store = Store(tmp_path / "store", study)
    folder, rng = store.method(FULL_PRECISION), np.random.default_rng(0)
    folder.describe(described(FULL_PRECISION))
    expected = {}
    for job in study.jobs:
        record = VideoRecord(prompt=job.prompt, seed=job.seed, seconds=1.0, commit=None)
        frames = rng.integers(0, 256, (9, 64, 48, 3), dtype=np.uint8)
        folder.keep(job, frames, np.zeros((1, 1, 2, 2), dtype=np.float32), record)
        expected[job.name] = temporal_flickering(frames.astype(np.float32) / np.float32(255))
    asked = Asked(store, (FULL_PRECISION,), (DIMENSIONS["temporal_flickering"],))
    score_all(asked, Judges(real, tmp_path / "weights", 12.0), lambda *_: None)
    found = scores_of(folder)["temporal_flickering"]
    # Sums of so few bytes are exact in float32; a frame's mean and the mean over nine are rounded.
    assert found.videos == pytest.approx(expected, abs=10 * 2.0**-24)
    assert found.score == pytest.approx(sum(expected.values()) / 2, abs=10 * 2.0**-24)
    assert not found.path_check


def test_its_own_attempt_to_download_is_stopped(real: Installed, tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match=r"no downloads here: wget .*amt-s\.pth"):
        real.score(
            DIMENSIONS["motion_smoothness"],
            [],
            title="nothing",
            weights=tmp_path,
            device="cpu",
            threads=1,
            timeout=120.0,
            on_video=lambda done: None,
        )
