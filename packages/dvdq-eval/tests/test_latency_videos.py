"""From passes to videos: traces are read strictly, and a video's time is the exact sum of its steps."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dvdq_eval.latency.videos import Mix, add_up, check_mixes
from dvdq_eval.methods import FULL_PRECISION, Method, parse_methods
from dvdq_eval.passes.running import FULL_WIDTH, variants_of
from dvdq_models import DvdqError
from dvdq_models.switching.schedule import StepDecision

WIDTHS = (8, 8, 4, 4, 8, 4, 4)


def record(*widths: int, skipped: bool = False, **others: Any) -> dict[str, Any]:
    """What stands beside a video, as ``dvdq generate`` and a store write it."""
    steps = [StepDecision(step, width, None, "a reason", skipped=skipped) for step, width in enumerate(widths)]
    return {"prompt": "a red circle", "seconds": 1.5, "trace": [asdict(step) for step in steps]} | others


def written(folder: Path, values: Any) -> Path:
    path = folder / "video.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_methods_of_one_recipe_share_its_weights() -> None:
    names = ["dvd-quant:W4A4", "minmax:W4A4", "dvd-quant:W4A6", "dvd-quant:W8A8", "dvd-quant:W4A8"]
    found = variants_of("latency", parse_methods("latency", names))
    assert [(variant.label, variant.widths, variant.bits(4)) for variant in found] == [
        ("Full precision", (16,), ""),
        ("DVD-Quant", (8, 4), "W4A4"),
        ("MinMax", (4,), "W4A4"),
        ("DVD-Quant", (8,), "W8A4"),
    ]
    assert found[1].bits(8, 4) == "W4A6"


def test_a_trace_tells_how_many_steps_ran_at_each_width(tmp_path: Path) -> None:
    path = written(tmp_path, record(*WIDTHS, teacache=[], reused=0.0))
    assert Mix.of("latency", path) == Mix({8: 3, 4: 4}, f"{tmp_path.name}/video.json")
    assert Mix.of("latency", path).steps == 7


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("{", "the JSON record of a video"),
        ([], "the JSON record of a video"),
        ({"prompt": "a red circle"}, "the JSON record of a video"),
        ({"trace": [{"step": 0}]}, "the JSON record of a video"),
        (record(), "a trace of steps that all ran, got none"),
        (record(8, 4, skipped=True), "a trace of steps that all ran, got skipped ones"),
        (record(8, 4, teacache=[{"step": 0}]), "got skipped ones"),
        (record(8, 4, reused=0.25), "got skipped ones"),
    ],
)
def test_another_file_is_one_error(tmp_path: Path, values: Any, expected: str) -> None:
    path = written(tmp_path, values)
    with pytest.raises(DvdqError) as error:
        Mix.of("latency", path)
    assert str(error.value).startswith(f"latency: {path}: expected ")
    assert expected in str(error.value)


def test_a_video_is_the_exact_sum_of_its_steps() -> None:
    full, ours, other = variants_of("latency", parse_methods("latency", ["dvd-quant:W4A6", "minmax:W4A4"]))
    medians = {full: {FULL_WIDTH: 0.7}, ours: {8: 0.4, 4: 0.1}, other: {4: 0.3}}
    mix = Mix({8: 21, 4: 29}, "video.json")
    videos = add_up(medians, [mix], steps=30, passes=2)
    assert [(video.label, video.bits, video.steps_at, video.trace) for video in videos] == [
        ("Full precision", "", {"16": 30}, "constant"),
        ("DVD-Quant", "W4A8", {"8": 30}, "constant"),
        ("DVD-Quant", "W4A4", {"4": 30}, "constant"),
        ("DVD-Quant", "W4A6", {"8": 21, "4": 29}, "video.json"),
        ("MinMax", "W4A4", {"4": 30}, "constant"),
    ]
    at = {"16": 0.7, "8": 0.4, "4": 0.1}
    for video in videos[:4]:
        exact = 2 * sum(steps * Fraction(at[width]) for width, steps in video.steps_at.items())
        # Each product, their sum and the passes are rounded once.
        assert video.seconds == pytest.approx(float(exact), rel=4 * 2.0**-53)
        assert video.passes == 2
        whole = 2 * sum(video.steps_at.values()) * Fraction(0.7)
        assert video.ratio == pytest.approx(float(whole / exact), rel=8 * 2.0**-53)
    assert videos[0].ratio == 1.0


def test_what_no_trace_tells_and_what_nobody_runs_is_refused() -> None:
    methods = parse_methods("latency", ["dvd-quant:W4A6"])
    with pytest.raises(DvdqError, match="latency: DVD-Quant W4A6: expected --trace of a video"):
        check_mixes("latency", methods, variants_of("latency", methods), [])
    mix = Mix({8: 1, 4: 2}, "video.json")
    check_mixes("latency", methods, variants_of("latency", methods), [mix])
    methods = parse_methods("latency", ["dvd-quant:W4A4", "dvd-quant:W4A8"])
    with pytest.raises(DvdqError, match="a method that switches between 8 and 4 bits, got Full precision, DVD-Quant"):
        check_mixes("latency", methods, variants_of("latency", methods), [mix])


def test_a_mix_is_of_methods_that_switch_and_of_its_own_if_it_has_one() -> None:
    names = ["dvd-quant:W4A6", "dvd-quant-plus:W4A6", "minmax:W4A8", "minmax:W4A4"]
    variants = variants_of("latency", parse_methods("latency", names))
    assert [variant.switches for variant in variants] == [False, True, True, False]
    medians = {variant: dict.fromkeys(variant.widths, 1.0) for variant in variants}
    mixes = [Mix({8: 1, 4: 2}, "any"), Mix({8: 2, 4: 1}, "plus", "DVD-Quant plus")]
    mixed = [v for v in add_up(medians, mixes, steps=3, passes=1) if v.trace != "constant"]
    assert [(v.label, v.trace) for v in mixed] == [
        ("DVD-Quant", "any"),
        ("DVD-Quant plus", "any"),
        ("DVD-Quant plus", "plus"),
    ]


@pytest.mark.parametrize("other", [{"peer": "orbitquant-w4a4"}, {"teacache": 0.1}])
def test_what_is_no_recipe_of_ours_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(DvdqError, match=r"latency: Ours.*: expected full precision, or a recipe alone"):
        variants_of("latency", [FULL_PRECISION, Method("Ours", **other)])
