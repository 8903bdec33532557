"""``dvdq-eval quality`` on files and folders."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dvdq_eval.cli import app, main
from dvdq_eval.quality import measure
from dvdq_eval.quality.compare import compare
from dvdq_models.running.video import read_mp4, write_mp4
from dvdq_reference.spec.errors import DvdqError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same latent and, in the first one, an error of half its norm; and the same video."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((2, 3))
    # Of a single macroblock x264 does not always make the same file.
    frames = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for name, factor in (("result", 1.5), ("reference", 1.0)):
        (tmp_path / name / "deep").mkdir(parents=True)
        np.save(tmp_path / name / "deep" / "1.npy", factor * latent)
        write_mp4(tmp_path / name / "1.mp4", frames)
    return tmp_path / "result", tmp_path / "reference"


def test_folders_are_matched_by_name(folders: tuple[Path, Path]) -> None:
    video, latent = compare(*folders)
    assert (video.name, video.psnr_db, video.relative_error) == ("1.mp4", np.inf, None)
    frames = read_mp4(folders[0] / "1.mp4").astype(np.float32) / 255.0
    assert asdict(measure(frames, frames)).items() <= asdict(video).items()
    assert (latent.name, latent.psnr_db, latent.vmaf) == ("deep/1.npy", None, None)
    # Three roundings: of the product, of the difference, of the quotient, each relative to numbers near one.
    assert latent.relative_error == pytest.approx(0.5, rel=3 * 2 * np.finfo(np.float64).eps)


def test_the_command_prints_a_table_or_strict_json(folders: tuple[Path, Path]) -> None:
    runner = CliRunner()
    printed = runner.invoke(app, ["quality", *map(str, folders)])
    assert printed.exit_code == 0
    lines = [line.split() for line in printed.stdout.splitlines()]
    assert ["deep/1.npy", "0.5000"] in lines
    [video] = [line for line in lines if line[:1] == ["1.mp4"]]
    rows = json.loads(runner.invoke(app, ["quality", *map(str, folders), "--json"]).stdout)
    assert [row["psnr_db"] for row in rows] == [None, None]
    assert [row["name"] for row in rows] == ["1.mp4", "deep/1.npy"]
    # The same figures, to the digits that the table has.
    fields = {"ssim": 4, "ms_ssim": 4, "vmaf": 2, "flickering": 4, "reference_flickering": 4}
    assert video == ["1.mp4", "inf", *(f"{rows[0][field]:.{digits}f}" for field, digits in fields.items())]
    assert {rows[1][field] for field in fields} == {None}


def test_a_missing_counterpart_is_one_line(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "1.mp4").unlink()
    with pytest.raises(DvdqError, match=r"1\.mp4"):
        compare(*folders)
    monkeypatch.setattr(sys, "argv", ["dvdq-eval", "quality", *map(str, folders)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("error: compare")


def test_only_like_is_compared_with_like(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DvdqError, match=r"two \.mp4 or two \.npy"):
        compare(folders[0] / "1.mp4", folders[1] / "deep" / "1.npy")
    with pytest.raises(DvdqError, match="neither"):
        compare(folders[0] / "2.mp4", folders[1] / "1.mp4")


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY"])
def test_a_broken_latent_is_an_error(folders: tuple[Path, Path], content: bytes) -> None:
    broken = folders[0] / "deep" / "1.npy"
    broken.write_bytes(content)
    with pytest.raises(DvdqError, match=r"1\.npy"):
        compare(broken, folders[1] / "deep" / "1.npy")
