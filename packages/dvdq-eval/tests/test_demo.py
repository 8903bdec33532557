"""The demo end to end on a tiny untrained pipeline."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import nn

from dvdq_eval.demo.results import Results, demo_sheet
from dvdq_eval.demo.run import CONTENTS, METHODS, choose_scenes, demo_study, run_demo
from dvdq_eval.quality import relative_error
from dvdq_eval.sheets import terminal
from dvdq_eval.tables.rows import summary_of
from dvdq_eval.videos.making import passes_timed
from dvdq_eval.videos.study import Study
from dvdq_models.moving_shapes.clips import BACKGROUNDS, SHAPES, SPEEDS, Scene, split_scenes
from dvdq_models.moving_shapes.wan import LATENT_CHANNELS
from dvdq_models.running.video import read_mp4
from dvdq_reference.spec.errors import DvdqError

STEPS, SIZE, FRAMES = 4, 32, 5


class Ran:
    """A finished demo: its results, folder, and what was told."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.told: list[tuple[str, int, int]] = []
        self.results: Results = run_demo(study, folder, lambda *what: self.told.append(what))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path, scenes: Sequence[Scene]) -> Study:
    prompts, settings = [scene.prompt for scene in scenes], json.loads((tiny_folder / "call.json").read_text())
    study = Study.of(tiny_folder, prompts, demo_study("wan", 1, 0, None).preparing, settings)
    return dataclasses.replace(study, first_seed=3)


@pytest.fixture(scope="module")
def ran(tiny: Study, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tiny, tmp_path_factory.mktemp("out") / "demo")


def test_everything_promised_is_written(ran: Ran, scenes: Sequence[Scene]) -> None:
    assert {path.name for path in ran.folder.iterdir()} == CONTENTS
    for method in METHODS:
        for number in range(1, len(scenes) + 1):
            assert read_mp4(ran.folder / "videos" / method.slug / f"{number}.mp4").shape[0] == FRAMES
            latent = np.load(ran.folder / "latents" / method.slug / f"{number}.npy")
            assert latent.shape == (LATENT_CHANNELS, 2, SIZE // 8, SIZE // 8)
    assert read_mp4(ran.folder / "side-by-side.mp4").shape[0] == FRAMES
    assert [path.name for path in ran.folder.parent.iterdir()] == ["demo"]


def test_results_json_is_strict_and_complete(ran: Ran, scenes: Sequence[Scene]) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(constant)

    values: dict[str, Any] = json.loads((ran.folder / "results.json").read_text(), parse_constant=refuse)
    assert set(values) == {"schema", "rows", "videos", "switch", "layers", "activations", "provenance"}
    assert [(row["row"]["label"], row["row"]["bits"]) for row in values["rows"]] == [(m.label, m.bits) for m in METHODS]
    assert len(values["videos"]) == len(METHODS) * len(scenes)
    assert [video["record"]["seed"] for video in values["videos"][:2]] == [3, 4]
    assert values["provenance"]["seed"] == 3
    assert values["provenance"]["settings"] == dict(ran.study.settings)
    assert set(values["provenance"]["recipes"]) == {m.slug for m in METHODS[1:]}


def test_full_precision_is_the_reference(ran: Ran) -> None:
    full, *others = ran.results.rows
    assert (full.smaller, full.row.average_bits) == (1.0, None)
    assert set(full.means) == {"adherence", "flickering"}
    for summary in others:
        assert summary.smaller == full.row.bytes / summary.row.bytes > 1.0
        assert summary.means["latent_error"] > 0.0
        assert summary.means["latent_error"] == pytest.approx(summary.row.metrics["latent_error"].mean)


def test_speed_is_that_of_the_passes_alone_and_relative_to_full_precision(ran: Ran) -> None:
    full, *others = ran.results.rows
    for summary in others:
        made = [v.record for v in ran.results.videos if (v.label, v.bits) == (summary.row.label, summary.row.bits)]
        assert summary.pass_seconds == np.median([record.pass_seconds for record in made])
        assert all(0.0 < (record.pass_seconds or 0.0) < (record.seconds or 0.0) for record in made)
    page = (ran.folder / "report.html").read_text()
    ours = next(summary for summary in others if summary.row.title == "DVD-Quant W4A4")
    assert full.pass_seconds is not None
    assert ours.pass_seconds is not None
    assert f"{full.pass_seconds / ours.pass_seconds:.2f} ×" in page
    assert f"{ours.pass_seconds:.2f}" in page


def test_passes_are_timed_one_by_one_and_nothing_between_them() -> None:
    class Sleeper(nn.Module):
        def forward(self, seconds: float) -> None:
            time.sleep(seconds)

    sleeper = Sleeper()
    with passes_timed([sleeper]) as passes:
        for seconds in (0.01, 0.04):
            sleeper(seconds)
            time.sleep(0.1)
    assert [0.01 <= passes[0] < 0.1, 0.04 <= passes[1] < 0.1] == [True, True]
    sleeper(0.0)
    assert len(passes) == 2


def test_average_bits_are_those_of_the_trace(ran: Ran) -> None:
    bits = {(found.row.label, found.row.bits): found.row.average_bits for found in ran.results.rows}
    assert bits["DVD-Quant", "W4A8"] == 8.0
    assert bits["DVD-Quant", "W4A4"] == bits["MinMax", "W4A4"] == 4.0
    traces = [video.record.trace or () for video in ran.results.videos if video.bits == "W4A6"]
    switched = [[step.bits for step in trace] for trace in traces]
    assert all(len(steps) == STEPS and set(steps) <= {4, 8} for steps in switched)
    assert bits["DVD-Quant", "W4A6"] == np.mean(switched)
    best = min(ran.results.switch.trials, key=lambda trial: abs(trial.average - 6.0))
    assert ran.results.switch.delta == best.delta


def test_each_quantized_layer_is_measured_under_both_grids(ran: Ran) -> None:
    names = [name for name, _ in ran.study.load().transformer.named_modules()]
    assert len(ran.results.layers) == 2 * 10
    assert {layer.name for layer in ran.results.layers} <= set(names)
    # BGR starts from the min-max grid and takes no step that raises the error.
    assert all(0.0 < layer.bgr_error <= layer.minmax_error for layer in ran.results.layers)


def test_activations_are_recorded_before_and_after_rotation(ran: Ran) -> None:
    peaks = ran.results.activations
    assert peaks.layer == "blocks.1.ffn.net.2"
    assert len(peaks.before) == len(peaks.after) == 256
    assert peaks.before != peaks.after
    assert min(peaks.before + peaks.after) > 0.0


def test_delta_is_chosen_on_a_prompt_that_is_not_reported() -> None:
    study = demo_study("wan", 4, 0, 6)
    assert len(study.preparing) == 1
    assert set(study.preparing).isdisjoint(scene.prompt for scene in split_scenes()[1])
    assert study.settings["num_inference_steps"] == 6
    assert [job.seed for job in demo_study("wan", 3, 5, None).jobs] == [5, 6, 7]


def test_figures_are_those_of_what_is_written(ran: Ran) -> None:
    """Every command measures frames in 8 bits: so a video's figures can be had again from what an encoder was given."""
    for number, job in enumerate(ran.study.jobs):
        latents = [np.load(ran.folder / "latents" / m.slug / f"{number + 1}.npy") for m in METHODS]
        for method, value in zip(METHODS[1:], latents[1:], strict=True):
            (video,) = (
                v
                for v in ran.results.videos
                if (v.label, v.bits, v.record.prompt) == (method.label, method.bits, job.prompt)
            )
            assert video.quality.latent_error == relative_error(value, latents[0])


def test_progress_reaches_its_end(ran: Ran) -> None:
    last = {what: (done, total) for what, done, total in ran.told}
    assert all(done == total for done, total in last.values())
    assert {f"{method.title}: generating" for method in METHODS} <= set(last)


def test_the_table_fits_a_terminal(ran: Ran) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(terminal(demo_sheet(ran.results)))
    text = console.file.getvalue()
    assert "…" not in text
    column = " ".join(line.strip().split("  ")[0] for line in text.splitlines())  # a long title has two lines
    assert [method.title in column for method in METHODS] == [True] * len(METHODS)


def test_one_prompt_has_figures_and_no_intervals(outcome: Any) -> None:
    measured = outcome.measured[-1]
    summary = summary_of(dataclasses.replace(measured, videos=measured.videos[:1]))
    assert summary.row.metrics == {}
    assert summary.means == pytest.approx({"psnr_db": 18.0, "ssim": 0.7, "latent_error": 0.6})
    results = dataclasses.replace(outcome.results, rows=[*outcome.results.rows[:-1], summary])
    assert [cell.text for cell in demo_sheet(results).rows[-1][6:9]] == ["18.0", "0.700", "0.600"]


def test_widths_of_one_method_share_their_weights(ran: Ran) -> None:
    rows = [found.row for found in ran.results.rows if found.row.label == "DVD-Quant"]
    assert len(rows) == 3
    assert len({(row.bytes, row.prepare_seconds) for row in rows}) == 1


def test_a_cancelled_demo_leaves_the_earlier_one(ran: Ran) -> None:
    before = (ran.folder / "results.json").read_text()

    def cancel(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(ran.study, ran.folder, cancel)
    assert (ran.folder / "results.json").read_text() == before
    assert [path.name for path in ran.folder.parent.iterdir()] == ["demo"]


def test_prompts_are_unseen_varied_and_chosen_by_the_seed() -> None:
    _, unseen = split_scenes()
    chosen = choose_scenes(4, 0)
    assert set(chosen) <= set(unseen)
    assert len(set(chosen)) == 4
    assert chosen == choose_scenes(4, 0)
    assert chosen != choose_scenes(4, 1)


@pytest.mark.parametrize("seed", range(5))
def test_four_prompts_show_every_shape_speed_and_background(seed: int) -> None:
    shown = [set(words) for words in zip(*map(astuple, choose_scenes(4, seed)), strict=True)]
    assert [len(shown[i]) for i in (0, 1, 3, 4)] == [4, len(SHAPES), len(SPEEDS), len(BACKGROUNDS)]


def test_too_many_prompts_are_an_error() -> None:
    with pytest.raises(DvdqError, match="1 to 64"):
        choose_scenes(65, 0)
