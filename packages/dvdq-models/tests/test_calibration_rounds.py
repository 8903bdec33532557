"""Second moments in rounds: on the disk before the next begins, gone on with after a kill, read where they lie."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dvdq_models import DvdqError
from dvdq_models.calibration import Calibration, _write, calibrate
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.cli import app
from dvdq_models.files.workspace import Workspace

AT_ONCE = 4 * 4 * 128**2
"""Four matrices of 128 channels, or one of 384 for which there is no room: five rounds of the model's thirteen."""


class Killed(BaseException):
    """What nothing catches."""


@pytest.fixture
def record(
    pipeline: Any, generate: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Calibration, list[tuple[int, int]]]]:
    """Calibrate by two videos, in no time, until one is reached that is not made any more; what progress said, too."""
    monkeypatch.setattr("dvdq_models.calibration.time.perf_counter", lambda: 0.0)

    def run(work: Workspace | None = None, dies_at: int = 0, at_once: int = AT_ONCE) -> Any:
        told: list[tuple[int, int]] = []

        def make(steps: int) -> None:
            if len(told) + 1 == dies_at:
                raise Killed
            generate(pipeline, steps=steps)

        videos = [("a", lambda: make(1)), ("b", lambda: make(2))]
        asked = {"moments": True, "at_once": at_once, "progress": lambda *n: told.append(n)}
        return calibrate(pipeline, videos, work=work, **asked), told

    return run


def _work(place: Path, **options: Any) -> Workspace:
    return Workspace("calibrate", place, {"seed": 0}, file="c.safetensors", **options)


def test_killed_in_any_round_it_goes_on_to_the_same_bytes(record: Any, tmp_path: Path) -> None:
    whole, told = record()
    assert told == [(n, 10) for n in range(1, 11)]
    assert whole.passes == 2 * (1 + 2)
    whole.save(tmp_path / "whole.safetensors")
    expected = (tmp_path / "whole.safetensors").read_bytes()
    place, made = tmp_path / "c.safetensors", []
    # In the first round; in the second video of the third; after the fourth, its matrices written but not noted.
    for dies_at, dies_noting in ((2, False), (6, False), (0, True), (0, False)):
        told = []
        with contextlib.suppress(Killed), pytest.MonkeyPatch.context() as patch, _work(place) as work:
            if dies_noting:
                notes = iter([work.record])
                patch.setattr(work, "record", lambda names, notes=notes: next(notes, _die)(names))
            made.append(len(work.done))
            calibration, told = record(work, dies_at)
    assert made == [0, 0, 20 + 4 + 4, 20 + 4 + 4 + 1]  # maxima, and matrices of two rounds, of three
    assert told == [(n, 4) for n in range(1, 5)]
    assert place.read_bytes() == expected
    assert calibration.digest() == whole.digest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.safetensors", "whole.safetensors"]


def _die(*_: Any) -> None:
    raise Killed


def test_memory_holds_the_matrices_of_one_round(
    pipeline: Any, generate: Callable[..., torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[weakref.ref[torch.Tensor]] = []
    write = WeightFiles.write

    def watched(self: WeightFiles, name: str, tensor: torch.Tensor) -> None:
        if name.startswith("moments/"):
            written.append(weakref.ref(tensor))
        write(self, name, tensor)

    def make() -> None:
        assert not any(ref() is not None for ref in written)
        generate(pipeline, steps=1)

    monkeypatch.setattr(WeightFiles, "write", watched)
    with _work(tmp_path / "c.safetensors") as work:
        made = calibrate(pipeline, [("a", make)], moments=True, at_once=AT_ONCE, work=work)
    assert len(written) == len({id(matrix) for matrix in made.moments.values()}) == 13


def test_moments_stay_in_their_file(record: Any, tmp_path: Path) -> None:
    """A file of which no machine could hold half."""
    calibration, _ = record()
    huge = torch.empty(2**18, 2**18, device="meta")
    by_layer = {name: huge if name.endswith("attn1.to_q") else matrix for name, matrix in calibration.moments.items()}
    try:
        with dataclasses.replace(calibration, moments=by_layer | {"other": torch.empty_like(huge)})._file(
            tmp_path, "c"
        ):
            pass
    except OSError:
        pytest.skip("no file system for files with holes")
    again = Calibration.load(tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").stat().st_size > 2**39
    assert again.moments["other"].shape == huge.shape
    assert not again.moments["other"][-1].any()
    assert again.moments["transformer.blocks.0.attn1.to_q"] is again.moments["transformer.blocks.1.attn1.to_q"]


def test_a_disk_that_is_too_small_is_named(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, _work(tmp_path / "c.safetensors") as work:
        patch.setattr("dvdq_models.files.destinations.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(
            DvdqError, match=r"^calibrate: .*\.c\.safetensors\.part: expected [\d,]+ bytes free, got 1,000"
        ):
            record(work)


def test_by_command_another_run_does_not_go_on(pipeline_folder: Path, tmp_path: Path) -> None:
    def run(out: str, *options: str, dies_after: int | None = None) -> Any:
        asked = ["--prompt", "a", "--height", "16", "--width", "16", "--frames", "5", "--steps", "1", "--moments"]
        with pytest.MonkeyPatch.context() as patch:
            if dies_after is not None:
                rounds = iter([_write] * dies_after)
                patch.setattr("dvdq_models.calibration._write", lambda *given: next(rounds, _die)(*given))
            return CliRunner().invoke(app, ["calibrate", str(pipeline_folder), str(tmp_path / out), *asked, *options])

    small, place = ("--moments-memory", str(AT_ONCE / 1e9)), tmp_path / "c.safetensors"
    place.write_text("old")
    for rounds in (0, 1):
        with pytest.raises(Killed):
            run(place.name, *small, "--overwrite", dies_after=rounds)
        refused = run(place.name, *small).exception
        assert "expected a file that does not exist yet, got one that does" in str(refused)
    refused = run(place.name, "--overwrite", "--steps", "2", "--seed", "1").exception
    assert isinstance(refused, DvdqError)
    assert refused.operation == "calibrate"
    assert refused.got == "another steps, seed"
    assert place.read_text() == "old"
    went_on = run(place.name, "--overwrite")  # with more memory, the rest at once
    assert went_on.exit_code == 0, went_on.output
    assert run("whole.safetensors").exit_code == 0
    assert Calibration.load(place).digest() == Calibration.load(tmp_path / "whole.safetensors").digest()
    with pytest.raises(Killed):
        run("other.safetensors", *small, dies_after=1)
    assert run("other.safetensors", *small, "--seed", "1", "--restart").exit_code == 0
    other = Calibration.load(tmp_path / "other.safetensors")
    assert other.digest() != Calibration.load(place).digest()
    files = {"c.safetensors", "full", "other.safetensors", "whole.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == files
