"""The demo end to end on a tiny untrained pipeline."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKLWan, WanPipeline
from rich.console import Console
from torch import nn

from dvdq_eval.demo.methods import FULL_PRECISION, METHODS, QUANTIZED
from dvdq_eval.demo.prompts import choose_scenes
from dvdq_eval.demo.results import Results
from dvdq_eval.demo.run import run_demo
from dvdq_eval.demo.table import quality_table
from dvdq_eval.demo.write import CONTENTS
from dvdq_eval.generation import passes_timed
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.moving_shapes.clips import BACKGROUNDS, SHAPES, SPEEDS, Scene, split_scenes
from dvdq_models.moving_shapes.wan import build_scheduler, build_text_encoder, build_tokenizer
from dvdq_models.running.video import read_mp4
from dvdq_reference.spec.errors import DvdqError

STEPS, SIZE, FRAMES, CHANNELS = 6, 32, 5, 4
SETTINGS = {
    "negative_prompt": "",
    "height": SIZE,
    "width": SIZE,
    "num_frames": FRAMES,
    "num_inference_steps": STEPS,
    "guidance_scale": 2.0,
    "max_sequence_length": 16,
}


@pytest.fixture(scope="module")
def pipeline(tiny_transformer: Callable[[int], Any]) -> WanPipeline:
    tokenizer = build_tokenizer()
    transformer = tiny_transformer(CHANNELS)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        transformer=transformer,
        vae=vae.eval(),
        scheduler=build_scheduler(),
    )


class Ran:
    """A finished demo: its results, folder, and what was told."""

    def __init__(self, pipeline: WanPipeline, scenes: Sequence[Scene], folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[str, int, int]] = []
        self.transformer = pipeline.transformer
        self.results: Results = run_demo(
            pipeline, folder, scenes, seed=3, settings=SETTINGS, tell=lambda *what: self.told.append(what)
        )


@pytest.fixture(scope="module")
def ran(pipeline: WanPipeline, scenes: Sequence[Scene], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(pipeline, scenes, tmp_path_factory.mktemp("out") / "demo")


def test_everything_promised_is_written(ran: Ran, scenes: Sequence[Scene]) -> None:
    assert {path.name for path in ran.folder.iterdir()} == CONTENTS
    for method in METHODS:
        for number in range(1, len(scenes) + 1):
            assert read_mp4(ran.folder / "videos" / method.slug / f"{number}.mp4").shape[0] == FRAMES
            latent = np.load(ran.folder / "latents" / method.slug / f"{number}.npy")
            assert latent.shape == (CHANNELS, 2, SIZE // 8, SIZE // 8)
    assert read_mp4(ran.folder / "side-by-side.mp4").shape[0] == FRAMES
    assert [path.name for path in ran.folder.parent.iterdir()] == ["demo"]


def test_results_json_is_strict_and_complete(ran: Ran, scenes: Sequence[Scene]) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(constant)

    values: dict[str, Any] = json.loads((ran.folder / "results.json").read_text(), parse_constant=refuse)
    assert set(values) == {"schema", "rows", "videos", "trace", "layers", "activations", "provenance"}
    assert [(row["method"], row["bits"]) for row in values["rows"]] == [(m.name, m.bits) for m in METHODS]
    assert len(values["videos"]) == len(METHODS) * len(scenes)
    assert values["provenance"]["seed"] == 3
    assert values["provenance"]["settings"] == SETTINGS
    assert set(values["provenance"]["recipes"]) == {m.slug for m in QUANTIZED}


def test_full_precision_is_the_reference(ran: Ran) -> None:
    full, *others = ran.results.rows
    assert (full.compression, full.average_bits, full.psnr_db, full.ssim, full.latent_error) == (1.0, *[None] * 4)
    for row in others:
        assert row.compression == full.bytes / row.bytes > 1.0
        assert row.latent_error is not None
        assert row.latent_error > 0.0


def test_speed_is_that_of_the_passes_alone_and_relative_to_full_precision(ran: Ran) -> None:
    full, *others = ran.results.rows
    assert full.speedup == 1.0
    for row in others:
        assert row.video_seconds > 0.0
        # What the file holds is rounded to milliseconds.
        assert row.speedup == pytest.approx(full.video_seconds / row.video_seconds, rel=0.05)
    page = (ran.folder / "report.html").read_text()
    ours = next(row for row in others if (row.method, row.bits) == ("dvd-quant", "W4A4"))
    assert f"{ours.speedup:.2f}×" in page
    assert f"{ours.video_seconds:.2f}" in page


def test_passes_are_timed_one_by_one_and_nothing_between_them() -> None:
    class Sleeper(nn.Module):
        def forward(self, seconds: float) -> None:
            time.sleep(seconds)

    sleeper = Sleeper()
    with passes_timed(sleeper) as passes:
        for seconds in (0.01, 0.04):
            sleeper(seconds)
            time.sleep(0.1)
    assert [0.01 <= passes[0] < 0.1, 0.04 <= passes[1] < 0.1] == [True, True]
    sleeper(0.0)
    assert len(passes) == 2


def test_average_bits_are_those_of_the_trace(ran: Ran) -> None:
    bits = {(row.method, row.bits): row.average_bits for row in ran.results.rows}
    assert bits["dvd-quant", "W4A8"] == 8.0
    assert bits["dvd-quant", "W4A4"] == bits["minmax", "W4A4"] == 4.0
    switched = [[step.bits for step in video.steps] for video in ran.results.trace.videos]
    assert all(len(steps) == STEPS and set(steps) <= {4, 8} for steps in switched)
    assert bits["dvd-quant", "W4A6"] == np.mean(switched)
    assert len(ran.results.trace.trial_distances) == STEPS - 1


def test_each_quantized_layer_is_measured_under_both_grids(ran: Ran, pipeline: WanPipeline) -> None:
    names = [name for name, _ in pipeline.transformer.named_modules()]
    assert len(ran.results.layers) == 2 * 10
    assert {layer.name for layer in ran.results.layers} <= set(names)
    # BGR starts from the min-max grid and takes no step that raises the error.
    assert all(0.0 < layer.bgr_error <= layer.minmax_error for layer in ran.results.layers)


def test_activations_are_recorded_before_and_after_rotation(ran: Ran) -> None:
    peaks = ran.results.activations
    assert peaks.layer == "blocks.1.ffn.net.2"
    assert len(peaks.before) == len(peaks.after) == 128
    assert peaks.before != peaks.after
    assert min(peaks.before + peaks.after) > 0.0


def test_the_pipeline_is_left_as_it_came(ran: Ran, pipeline: WanPipeline) -> None:
    assert pipeline.transformer is ran.transformer
    assert not any(isinstance(module, QuantizedLinear) for module in pipeline.transformer.modules())
    assert getattr(pipeline.transformer, "_diffusers_hook", None) is None
    assert all(not module._forward_pre_hooks for module in pipeline.transformer.modules())


def test_progress_reaches_its_end(ran: Ran) -> None:
    last = {what: (done, total) for what, done, total in ran.told}
    assert all(done == total for done, total in last.values())
    assert {f"{method.label}: generating" for method in METHODS} <= set(last)


def test_the_table_fits_a_terminal(ran: Ran) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(quality_table(ran.results))
    text = console.file.getvalue()
    assert "…" not in text
    assert [method.label in text for method in METHODS] == [True] * len(METHODS)


def test_widths_of_one_method_share_their_weights(ran: Ran) -> None:
    rows = [row for row in ran.results.rows if row.method == "dvd-quant"]
    assert len(rows) == 3
    assert len({(row.bytes, row.quantize_seconds) for row in rows}) == 1


def test_a_cancelled_demo_leaves_the_earlier_one(ran: Ran, pipeline: WanPipeline, scenes: Sequence[Scene]) -> None:
    before = (ran.folder / "results.json").read_text()

    def cancel(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(pipeline, ran.folder, scenes, seed=0, settings=SETTINGS, tell=cancel)
    assert (ran.folder / "results.json").read_text() == before
    assert [path.name for path in ran.folder.parent.iterdir()] == ["demo"]
    assert pipeline.transformer is ran.transformer


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


def test_names_of_methods() -> None:
    assert (FULL_PRECISION.label, FULL_PRECISION.slug) == ("Full precision", "full-precision")
    assert (QUANTIZED[0].label, QUANTIZED[0].slug) == ("DVD-Quant W4A8", "dvd-quant-w4a8")
    assert len({method.slug for method in METHODS}) == len(METHODS)
