"""The tables and figures: what stands in them, how it is summarised, and every one of them at a minute's scale."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from dvdq_eval import intervals
from dvdq_eval.cli import app, main
from dvdq_eval.intervals import Interval
from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.paper import PAPER
from dvdq_eval.sheets import markdown
from dvdq_eval.tables import build, figures, rows
from dvdq_eval.tables.build import NAMES, narrowed, needed
from dvdq_eval.tables.catalogue import EXPERIMENTS, Experiment, Line, ours
from dvdq_eval.tables.sheets import table_sheet
from dvdq_eval.vbench.scoring import Score
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.prepare import tuned
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models import DvdqError
from dvdq_models.apply import prepare_layers
from dvdq_models.moving_shapes import WAN
from dvdq_models.running.video import read_mp4


def silent(*_: Any) -> None:
    """Progress that nobody watches."""


def test_every_method_of_the_paper_is_in_its_table() -> None:
    ours_1 = {(line.method.label, line.method.bits) for line in EXPERIMENTS["table-1"].lines}
    paper = {(row[0], row[1]) for row in PAPER["table-1"].rows if row[1] != "16/16"}
    assert paper <= ours_1
    assert {("OrbitQuant", "W4A4"), ("OrbitQuant", "W4A6"), ("SDNQ", "uint4")} <= ours_1
    assert {label for label in PAPER["table-2"].columns if label} <= {
        line.method.label for line in EXPERIMENTS["table-2"].lines
    }
    assert {row[:2] for row in PAPER["table-3"].rows} <= {
        (line.method.label, line.method.bits) for line in EXPERIMENTS["table-3"].lines
    }
    assert all(len(row) == len(table.columns) for table in PAPER.values() for row in table.rows)
    assert {"table-1", "table-2", "table-3", "table-4", "table-5"} | {f"figure-{n}" for n in (3, 4, 5, 6)} <= set(NAMES)


def test_what_vbench_says_is_a_column_unless_its_judge_was_random(study: Study, store: Store) -> None:
    def judge(configuration: Method) -> dict[str, Score]:
        worth = 0.5 if configuration == FULL_PRECISION else 0.25
        values: dict[str, float | None] = {job.name: worth + job.number / 100 for job in study.jobs}
        not_all = {**values, study.jobs[0].name: None}
        return {
            name: Score(name, None, found, (), random, 12.0, "h264", "", 0.0, {})
            for name, found, random in (
                ("imaging_quality", values, False),
                ("subject_consistency", values, True),
                ("motion_smoothness", not_all, False),
            )
        }

    lines = (Line(FULL_PRECISION), Line(ours("W4A4"), FULL_PRECISION))
    table = build.build_table("x", Experiment("title", lines, "claim"), store, silent, judge)
    exact, quantized = table.rows
    assert exact.metrics.keys() == {"adherence", "flickering", "imaging_quality"}
    assert exact.metrics["imaging_quality"].mean == pytest.approx(0.51)
    assert quantized.differences["imaging_quality"].mean == pytest.approx(-0.25)
    text = markdown(table_sheet(table))
    assert "imaging (VBench)" in text.splitlines()[0]
    assert "26.00 ± 1.00 ▼" in text.splitlines()[3]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_is_a_method_of_its_own(name: str) -> None:
    titles = [line.method.title for line in EXPERIMENTS[name].lines]
    assert len(set(titles)) == len(titles)
    for line in EXPERIMENTS[name].lines:
        assert line.against != line.method
        if line.method.bits == "W4A6" and line.method.recipe is not None and name != "figure-6":
            is_switch = line.method.recipe.schedule.kind == "delta"
            assert (line.method.average == 6.0) == is_switch


def test_one_cell_differs_in_each_row_beyond_the_paper() -> None:
    base = ours("W4A4").to_dict()["recipe"]
    for line in EXPERIMENTS["beyond"].lines:
        recipe = line.method.recipe
        if recipe is not None and recipe.name == "dvd-quant" and line.method.bits == "W4A4":
            changed = [k for k, v in line.method.to_dict()["recipe"].items() if v != base[k]]
            assert len(changed) <= 1, line.method.title


def test_every_recipe_fits_the_bundled_models() -> None:
    transformer = WAN.load().transformer
    for configuration in needed(NAMES, peers=True):
        if configuration.recipe is not None:
            assert len(prepare_layers(transformer, configuration.recipe, encoded=True)) == 60


def test_peers_can_be_left_out() -> None:
    assert any(c.peer is not None for c in needed(NAMES, peers=True))
    assert not any(c.peer is not None for c in needed(NAMES, peers=False))
    assert len(narrowed("table-2", peers=False).lines) == len(EXPERIMENTS["table-2"].lines)


def test_some_widths_can_be_had_alone() -> None:
    alone = narrowed("table-1", peers=True, bits=["W4A4"]).lines
    assert {line.method.bits for line in alone} == {"", "W4A4"}
    assert {line for line in EXPERIMENTS["table-1"].lines if line.method.bits == "W4A4"} <= set(alone)
    assert {c.bits for c in needed(["table-1", "beyond"], peers=False, bits=["W4A4"])} == {"", "W4A4"}


def test_a_row_is_the_mean_of_its_videos(store: Store) -> None:
    minmax, best = Method.named("MinMax", "minmax", "W4A4"), ours("W4A4")
    lines = (Line(FULL_PRECISION), Line(minmax, best), Line(best))
    table = build.build_table("x", Experiment("title", lines, "claim"), store, silent)
    assert [row.label for row in table.rows] == ["Full precision", "MinMax", "DVD-Quant"]
    exact, rival, ours_ = table.rows
    assert exact.metrics.keys() == {"adherence", "flickering"}
    assert (exact.bits_per_weight, exact.differences) == (16.0, {})
    folders = [store.method(tuned(store, c)) for c in (FULL_PRECISION, minmax, best)]
    for row, folder in ((rival, folders[1]), (ours_, folders[2])):
        values = measure_videos(store, folder, folders[0], "", silent)
        for name, interval in row.metrics.items():
            assert interval.mean == pytest.approx(fmean(getattr(video, name) for video in values), rel=1e-12)
            assert interval.low <= interval.mean <= interval.high
            assert interval.count == 3
    for name, paired in rival.differences.items():
        assert paired.mean == pytest.approx(rival.metrics[name].mean - ours_.metrics[name].mean, abs=1e-9)
    assert json.loads(json.dumps(dataclasses.asdict(table), allow_nan=False))["videos"] == 3


def _row(label: str, psnr: float, error: float, paired: tuple[float, float] | None) -> rows.Row:
    def spread(mean: float) -> Interval:
        return Interval(mean, mean - abs(mean) / 10, mean + abs(mean) / 10, 9)

    differences = {} if paired is None else {"psnr_db": spread(paired[0]), "latent_error": spread(paired[1])}
    metrics = {"psnr_db": spread(psnr), "latent_error": spread(error)}
    return rows.Row(label, "W4A4", None, None, metrics, differences, 4.0, None, None, 4.1, 1, 0.1, None, "k", ("c",))


def test_a_mark_needs_a_difference_beyond_chance() -> None:
    unsure = Interval(1.0, -0.1, 2.1, 9)
    found = [_row("a", 30.0, 0.2, None), _row("b", 32.0, 0.1, (2.0, -0.1)), _row("c", 20.0, 0.3, (-10.0, 0.1))]
    found.append(
        rows.Row(**{**vars(found[1]), "label": "d", "differences": {"psnr_db": unsure, "latent_error": unsure}})
    )
    table = rows.Table("t", "", "", "p", 9, {}, tuple(found), {})
    lines = markdown(table_sheet(table)).splitlines()
    assert lines[0] == "| method | bits a weight | activation bits | PSNR (dB) | latent error |"
    assert lines[2] == "| a W4A4 | 4.10 | 4.00 | 30.0 ± 3.0 | 0.200 ± 0.020 |"
    assert lines[3] == "| b W4A4 | 4.10 | 4.00 | 32.0 ± 3.2 ▲ | 0.100 ± 0.010 ▲ |"
    assert lines[4] == "| c W4A4 | 4.10 | 4.00 | 20.0 ± 2.0 ▼ | 0.300 ± 0.030 ▼ |"
    assert lines[5] == "| d W4A4 | 4.10 | 4.00 | 32.0 ± 3.2 | 0.100 ± 0.010 |"


def test_all_of_them_in_one_command(tiny_wan: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 99)  # nobody reads these intervals
    # The first rows of each table: that every recipe fits is another test's.
    few = {name: dataclasses.replace(table, lines=table.lines[:4]) for name, table in EXPERIMENTS.items()}
    monkeypatch.setattr(build, "EXPERIMENTS", few)
    out, kept = tmp_path / "tables", tmp_path / "videos"
    options = ["--videos", "2", "--steps", "4", "--no-peers", "--out", str(out), "--store", str(kept)]
    done = CliRunner().invoke(app, ["table", "all", *options])
    assert done.exit_code == 0, done.output
    for name in NAMES:
        assert str(out / name) in done.stdout.replace("\n", "")
        if name != "figure-5":
            values = json.loads((out / f"{name}.json").read_text())
            assert values["pipeline"] == "moving shapes, wan"
            assert values["provenance"]["dvdq"]
        if name in EXPERIMENTS:
            rows = (out / f"{name}.md").read_text().splitlines()[2:]
            assert len(rows) == len(narrowed(name, peers=False).lines)
            assert len(values["rows"]) == len(rows)
    for drawn, charts in (("figure-3", 1), ("figure-4", 4), ("figure-6", 1)):
        svg = ET.parse(out / f"{drawn}.svg").getroot()
        assert len([part for part in svg if part.get("role") == "img"]) == charts
    for picture in ("figure-5-w4a4", "figure-5-w4a8"):
        with Image.open(out / f"{picture}.png") as image:
            assert len(image.convert("L").getcolors() or [0]) > 3
    assert read_mp4(out / "figure-5-w4a4.mp4").shape[0] == 5
    costs = json.loads((out / "table-5.json").read_text())["rows"]
    assert [cost["memory"] > 1 for cost in costs] == [False, True, True, True]
    assert costs[0]["latency"] == 1.0
    peaks = json.loads((out / "figure-4.json").read_text())["peaks"]
    assert list(peaks) == ["as it comes", *figures.ROTATIONS]
    ratios = json.loads((out / "figure-3.json").read_text())["layers"]
    assert all(layer["bgr_error"] <= layer["minmax_error"] for layer in ratios)
    # Once more, from what is kept: nothing is generated, and the same table comes out.
    before = sorted(path.stat().st_mtime_ns for path in kept.rglob("*.mkv"))
    first = (out / "table-2.md").read_text()
    again = CliRunner().invoke(app, ["table", "2", *options])
    assert again.exit_code == 0, again.output
    assert sorted(path.stat().st_mtime_ns for path in kept.rglob("*.mkv")) == before
    assert (out / "table-2.md").read_text() == first


def test_a_pipeline_of_ones_own(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "measured.txt").write_text("a red circle moves left slowly over a gray background\na cat\n")
    (tmp_path / "preparing.txt").write_text("a blue square moves up slowly over a black background\n")
    options = ["--pipeline", str(tiny_folder), "--settings", (tiny_folder / "call.json").read_text(), "--no-peers"]
    options += ["--prompts", str(tmp_path / "measured.txt"), "--preparing", str(tmp_path / "preparing.txt")]
    options += ["--out", str(tmp_path / "t"), "--store", str(tmp_path / "v")]
    done = CliRunner().invoke(app, ["table", "table-2", *options])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "t" / "table-2.json").read_text())["rows"]
    assert "adherence" not in rows[0]["metrics"]  # nobody can see "a cat" without a network
    assert "psnr_db" in rows[0]["metrics"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table-9"], "table-9: expected one of table-1"),
        (["1", "--pipeline", "flux"], "--prompts for a pipeline"),
        (["1", "--prompts", "p.txt"], "--prompts: expected none for a bundled pipeline"),
        (["1", "--videos", "65"], "videos: expected 2 to 64"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dvdq-eval", "table", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_settings_must_be_an_object(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\nb\n")
    (tmp_path / "q.txt").write_text("c\n")
    prompts = ["--prompts", str(tmp_path / "p.txt"), "--preparing", str(tmp_path / "q.txt")]
    for text in ("[1]", "{"):
        done = CliRunner().invoke(app, ["table", "1", "--pipeline", str(WAN.folder), *prompts, "--settings", text])
        assert isinstance(done.exception, DvdqError)
        assert "--settings" in str(done.exception)
