"""Videos of many methods: made once, resumable, the same by any number of processes, and measured."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvdq_eval.cli.options import StudyOptions
from dvdq_eval.methods import FULL_PRECISION, Method, parse_methods
from dvdq_eval.peers.records import ORBITQUANT_W4A4, SDNQ_UINT4
from dvdq_eval.quality import psnr, relative_error
from dvdq_eval.records import read_record, replacing
from dvdq_eval.videos import making, prepare
from dvdq_eval.videos.fill import fill
from dvdq_eval.videos.making import generate
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.prepare import Pipelines, prepared_files, tuned
from dvdq_eval.videos.records import DeltaRecord, Quality
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Study
from dvdq_models import DvdqError, Recipe, quantize
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.moving_shapes import BUNDLED, WAN
from dvdq_models.moving_shapes.clips import split_scenes
from dvdq_models.running.placement import Offload
from dvdq_models.running.prompts import read_prompts
from dvdq_models.running.video import FPS, read_mp4, to_bytes, write_lossless
from dvdq_reference.spec.recipe import BitSchedule, Rotation

W4A4 = Method.named("DVD-Quant", "dvd-quant", "W4A4")
W4A8 = Method.named("DVD-Quant", "dvd-quant", "W4A8")
W4A6 = Method.named("DVD-Quant", "dvd-quant", "W4A6")


def silent(*_: Any) -> None:
    """Progress that nobody watches."""


def videos_of(store: Store, method: Method) -> MethodFolder:
    """The folder of a method, whose videos are made if they are not there."""
    assert fill(store, [method], silent) == 0
    return store.method(tuned(store, method))


def first_of(store: Store) -> Store:
    """The same store of a study that asks for its first video alone."""
    return Store(store.folder.parent, dataclasses.replace(store.study, prompts=store.study.prompts[:1]))


def test_a_method_is_what_decides_its_videos() -> None:
    assert W4A4.key == dataclasses.replace(W4A4, label="another name").key
    recipe = W4A4.recipe
    assert recipe is not None
    changed = [
        dataclasses.replace(recipe, rotation=Rotation("full")),
        dataclasses.replace(recipe, schedule=BitSchedule("constant", low=8, high=8)),
        Recipe.named("dvd-quant-plus", "W4A4"),
    ]
    others = [dataclasses.replace(W4A4, recipe=r) for r in changed]
    others += [FULL_PRECISION, dataclasses.replace(W4A4, teacache=0.1), Method("x", peer=SDNQ_UINT4), W4A6]
    others += [W4A6.with_delta(0.1), W4A6.with_delta(0.2), Method("x", peer=ORBITQUANT_W4A4)]
    # The schedule overrides the width of the rule.
    same = dataclasses.replace(recipe, activation=dataclasses.replace(recipe.activation, bits=8))
    assert dataclasses.replace(W4A4, recipe=same).key == W4A4.key
    assert len({c.key for c in [W4A4, *others]}) == 1 + len(others)
    assert (W4A6.average, W4A6.with_delta(0.1).average) == (6.0, None)


def test_a_study_asks_for_what_the_model_never_saw() -> None:
    study, (training, unseen) = Study.bundled("wan"), split_scenes()
    assert set(study.prompts) == {scene.prompt for scene in unseen}
    assert set(study.preparing) <= {scene.prompt for scene in training}
    assert all(job.scene is not None for job in study.jobs)
    assert {job.seed for job in study.jobs}.isdisjoint(job.seed for job in study.preparing_jobs)


def test_a_store_keeps_studies_apart(study: Study) -> None:
    keys = {study.key, Study.bundled("wan", videos=3, steps=5).key, Study.bundled("wan", videos=3, steps=6).key}
    assert len(keys) == 3
    # More prompts of the same study do not make another: the first videos are the same.
    assert Study.bundled("wan", videos=2, steps=4).key == study.key


def test_kept_videos_are_the_pipelines_own(study: Study, store: Store) -> None:
    folder = videos_of(store, W4A4)
    pipeline = study.load()
    assert W4A4.recipe is not None
    quantize(pipeline.transformer, W4A4.recipe)
    for job in study.jobs[:2]:
        wanted = generate(pipeline, job.prompt, seed=job.seed, settings=study.settings)
        assert np.array_equal(folder.frames(job), to_bytes(wanted.frames))
        assert np.array_equal(folder.latents(job), wanted.latents)
        record = folder.record(job)
        assert (record.prompt, record.seed, record.average_bits) == (job.prompt, job.seed, 4.0)
        assert len(record.trace or ()) == 4
    about = folder.about
    assert about is not None
    assert about.configuration == W4A4.to_dict()
    stored = [t for n, t in pipeline.transformer.state_dict().items() if n.endswith((".qweight", ".scale", ".zero"))]
    weights = sum(
        m.in_features * m.out_features for m in pipeline.transformer.modules() if isinstance(m, QuantizedLinear)
    )
    assert about.bits_per_weight == 8 * sum(t.nbytes for t in stored) / weights


def test_a_run_that_ended_early_goes_on(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = Store(tmp_path, study), []
    original = making.generate

    def counted(*args: Any, **kwargs: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args[1])
        return original(*args, **kwargs)

    monkeypatch.setattr(making, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        fill(store, [FULL_PRECISION], silent)
    folder = store.method(FULL_PRECISION)
    assert [folder.has(job) for job in study.jobs] == [True, True, False]
    assert not [path for path in folder.folder.iterdir() if path.name.startswith(".")]
    monkeypatch.setattr(making, "generate", lambda *args, **kwargs: made.append(args[1]) or original(*args, **kwargs))
    fill(store, [FULL_PRECISION], silent)
    assert made == [job.prompt for job in study.jobs]
    fill(store, [FULL_PRECISION], silent)
    assert len(made) == 3


def test_methods_that_share_weights_make_what_each_makes_alone(
    study: Study, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = [W4A8, W4A4, dataclasses.replace(W4A4, teacache=0.1), W4A8]
    alone = [videos_of(store, method) for method in methods]
    quantized = []
    original = prepare.quantize
    monkeypatch.setattr(prepare, "quantize", lambda *a, **k: quantized.append(a) or original(*a, **k))
    together = Store(tmp_path, study)
    assert fill(together, methods, silent) == 0
    assert len(quantized) == 1
    for method, folder in zip(methods, alone, strict=True):
        for job in study.jobs:
            assert np.array_equal(together.method(method).latents(job), folder.latents(job))
            ours, wanted = (f.record(job) for f in (together.method(method), folder))
            assert (ours.average_bits, ours.reused, ours.trace) == (wanted.average_bits, wanted.reused, wanted.trace)


def test_delta_is_tuned_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DvdqError, match="DVD-Quant W4A6: expected one that was chosen with the first video, got none"):
        tuned(store, W4A6)
    ready = Pipelines(store, silent).tuned(W4A6)
    assert ready.recipe is not None
    assert ready.average is None
    assert ready.recipe.schedule.delta is not None
    monkeypatch.setattr(prepare, "tune_delta", None)
    assert Pipelines(store, silent).tuned(W4A6) == tuned(store, W4A6) == ready
    assert tuned(store, W4A4) is W4A4
    [found] = [read_record(path, DeltaRecord) for path in (store.folder / "deltas").glob("*.json")]
    best = min(found.trials, key=lambda trial: abs(trial.average - 6.0))
    assert best.delta == found.delta == ready.recipe.schedule.delta


def test_calibration_is_made_once_and_never_of_measured_prompts(
    study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Pipelines(store, silent).calibration()
    assert set(made.prompts) == set(study.preparing)
    assert set(made.prompts).isdisjoint(study.prompts)
    assert made.passes == len(study.preparing) * 4 * 2
    monkeypatch.setattr(prepare, "calibrate", None)
    assert Pipelines(store, silent).calibration().digest() == made.digest()
    folder = videos_of(first_of(store), Method.named("SmoothQuant", "smoothquant", "W4A8"))
    assert folder.about is not None
    assert folder.about.calibration_seconds == pytest.approx(made.seconds, abs=1e-3)


def test_a_method_that_feeds_back_has_a_calibration_of_its_own(study: Study, store: Store) -> None:
    fed = Method.named("DVD-Quant", "dvd-quant", "W4A8").with_feedback()
    assert prepared_files(store, fed) == {"moments.safetensors": False}
    folder = videos_of(first_of(store), fed)
    assert prepared_files(store, fed) == {"moments.safetensors": True}
    made = Pipelines(store, silent).calibration(moments=True)
    assert made.moments.keys() == made.maxima.keys()
    assert folder.about is not None
    assert folder.about.calibration_seconds == pytest.approx(made.seconds, abs=1e-3)
    assert folder.about.bits_per_weight == pytest.approx(4.2, abs=0.1)


def test_teacache_is_traced(study: Study, store: Store) -> None:
    cached = dataclasses.replace(FULL_PRECISION, teacache=1e9)
    record = videos_of(first_of(store), cached).record(study.jobs[0])
    assert record.reused == 0.5  # the first step and the last of four are computed


def test_measurements_are_of_what_is_kept(study: Study, store: Store) -> None:
    reference, folder = (videos_of(store, c) for c in (FULL_PRECISION, W4A4))
    own = measure_videos(store, reference, reference, "", silent)
    for values in own:
        seen = Quality(flickering=values.flickering, words=values.words, adherence=values.adherence)
        assert values == seen
        assert values.of_reference
        assert None not in (seen.flickering, seen.words, seen.adherence)
    found = measure_videos(store, folder, reference, "", silent)
    for job, values in zip(study.jobs, found, strict=True):
        frames, exact = (f.frames(job).astype(np.float32) / np.float32(255) for f in (folder, reference))
        assert values.psnr_db == psnr(frames, exact)
        assert values.latent_error == relative_error(folder.latents(job), reference.latents(job))
        assert values.adherence == sum((values.words or {}).values()) / 5
        assert folder.quality(job) == values


def test_a_video_equal_to_its_reference_has_no_psnr(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path, study)
    reference = videos_of(store, FULL_PRECISION)
    same = videos_of(store, dataclasses.replace(FULL_PRECISION, teacache=0.0))
    for values in measure_videos(store, same, reference, "", silent):
        assert values.psnr_db is None
        assert (values.ssim, values.latent_error) == (pytest.approx(1.0), 0.0)


def test_other_prompts_never_take_over_a_video(study: Study, tmp_path: Path) -> None:
    first, second = (Study.of(study.folder, [p, "b"], ["c"], study.settings) for p in ("a red circle", "a blue square"))
    assert first.key == second.key
    folders = [videos_of(first_of(Store(tmp_path, s)), FULL_PRECISION) for s in (first, second)]
    assert [f.record(s.jobs[0]).prompt for f, s in zip(folders, (first, second), strict=True)] == [
        "a red circle",
        "a blue square",
    ]
    assert not np.array_equal(folders[0].latents(first.jobs[0]), folders[1].latents(second.jobs[0]))


def test_a_run_s_unfinished_file_is_its_own(tmp_path: Path) -> None:
    target = tmp_path / "0007-ab.mkv"

    def give_up() -> None:
        with replacing(target) as path:
            path.write_text("half")
            assert (path.suffix, str(os.getpid()) in path.name) == (".mkv", True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert not list(tmp_path.iterdir())
    with replacing(target) as path:
        path.write_text("whole")
    assert target.read_text() == "whole"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: Study.bundled("flux"), "pipeline: expected a folder or one of wan"),
        (lambda p: Study.bundled("wan", videos=65), "videos: expected 2 to 64, got 65"),
        (lambda p: Study.of(p, ["a"], [], {}), "prompts: expected two or more, got 1"),
        (lambda p: Study.of(p, ["a", "b"], ["b"], {}), "preparing: expected prompts that are not measured, got 'b'"),
        (lambda p: Study.of(p, ["a", "b"], ["c"], {}).key, "expected a pipeline's folder, got no model_index.json"),
        (lambda p: read_prompts("table", p / "none.txt"), "none.txt: expected a text file of prompts"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, call: Any, message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        call(tmp_path)


def test_a_method_that_must_be_prepared_needs_prompts(study: Study, tmp_path: Path) -> None:
    bare = Study.of(study.folder, study.prompts, (), study.settings)
    with pytest.raises(DvdqError, match="preparing: expected prompts to calibrate and to choose δ on"):
        fill(Store(tmp_path, bare), [W4A6], silent)


def test_prompts_come_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n\n  a dog \n")
    assert read_prompts("table", tmp_path / "p.txt") == ("a cat", "a dog")


def test_prompts_that_are_not_measured_prepare(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na fish\n\na bird\n")
    study = StudyOptions(
        pipeline=str(WAN.folder),
        videos=2,
        prompts=tmp_path / "prompts.txt",
        settings='{"height": 32}',
        steps=4,
    ).open("table", samples=2)
    assert (study.prompts, study.preparing) == (("a cat", "a dog"), ("a fish", "a bird"))
    assert [(job.number, job.prompt, job.seed) for job in study.jobs] == [
        (0, "a cat", 0),
        (1, "a cat", 1),
        (2, "a dog", 2),
        (3, "a dog", 3),
    ]
    assert study.settings == {"height": 32, "num_inference_steps": 4}


def test_videos_have_the_frame_rate_of_their_makers(tmp_path: Path) -> None:
    assert Study.bundled("wan").fps == FPS
    study = Study.of(tmp_path, ["a cat", "a dog"], [], {})
    for name, rate in (("WanPipeline", 16), ("HunyuanVideoPipeline", 24)):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        assert study.fps == rate
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SomebodysPipeline"}))
    with pytest.raises(DvdqError, match=r"expected one of WanPipeline, .*got SomebodysPipeline"):
        _ = study.fps


def test_a_twin_is_studied_like_its_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = dataclasses.replace(WAN.with_outliers(4.0), folder=tmp_path / "twin")
    monkeypatch.setitem(BUNDLED, "wan-outliers", twin)
    original, study = Study.bundled("wan", videos=2), Study.bundled("wan-outliers", videos=2)
    assert type(study.open().transformer) is type(original.open().transformer)
    assert (study.fps, study.teacache, study.prompts) == (FPS, original.teacache, original.prompts)
    assert study.key != original.key


def test_only_what_a_pipeline_is_read_from_decides_its_study(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(WAN.folder, folder)
    key = Study.of(folder, ["a cat", "a dog"], [], {}).key
    (folder / ".cache").mkdir()
    (folder / ".cache" / "config.json").write_text("{}")
    (folder / "assets").mkdir()
    (folder / "assets" / "cat.png").write_bytes(b"")
    assert Study.of(folder, ["a cat", "a dog"], [], {}).key == key
    (folder / "transformer" / "config.json").write_text("{}")
    assert Study.of(folder, ["a cat", "a dog"], [], {}).key != key


def test_settings_change_a_bundled_pipelines_call() -> None:
    study = StudyOptions(videos=2, steps=5, settings='{"height": 32}').open("table")
    assert study.settings == {**Study.bundled("wan", 2).settings, "height": 32, "num_inference_steps": 5}
    assert StudyOptions(videos=2, steps=4).open("table").key == Study.bundled("wan", 2, 4).key


@pytest.mark.parametrize(
    ("offload", "order"), [(Offload.NONE, ["placed", "quantized", "placed"]), (Offload.MODEL, ["quantized", "placed"])]
)
def test_what_does_not_fit_is_quantized_before_it_is_placed(
    offload: Offload, order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(Study.bundled("wan", 2, 4, "cuda"), offload=offload)
    events: list[str] = []

    def place(pipeline: Any, device: str, offload: Offload) -> None:
        assert (device, offload) == (study.device, study.offload)
        events.append("placed")

    def quantize_(transformer: Any, recipe: Recipe, **options: Any) -> Any:
        events.append("quantized")
        return quantize(transformer, recipe, **options)

    monkeypatch.setattr("dvdq_eval.videos.study.place", place)
    monkeypatch.setattr(prepare, "quantize", quantize_)
    Pipelines(Store(tmp_path, study), silent).load(W4A4)
    assert events == order


def test_offloading_makes_another_study_and_needs_a_device() -> None:
    plain = StudyOptions(videos=2, device="cuda").open("table")
    assert StudyOptions(videos=2, device="cuda", offload=Offload.GROUP).open("table").key != plain.key
    assert plain.key == Study.bundled("wan", 2, device="cuda").key
    with pytest.raises(DvdqError, match="--offload: expected a device to offload from"):
        StudyOptions(videos=2, offload=Offload.MODEL).open("table")


def test_methods_by_name_begin_with_full_precision() -> None:
    found = parse_methods("generate", ["dvd-quant:W4A4", "minmax:W4A8", "dvd-quant:W4A4"])
    assert found == (FULL_PRECISION, W4A4, Method.named("MinMax", "minmax", "W4A8"))
    [_, plain, fed] = parse_methods("generate", ["dvd-quant-finish:W4A4", "dvd-quant-finish:W4A4:feedback"])
    assert (plain.label, fed.label) == ("DVD-Quant finish", "DVD-Quant finish, rounded by its own videos")
    assert plain.recipe is not None
    assert fed.recipe is not None
    rules = [dataclasses.replace(rule, rounding="feedback") for rule in plain.recipe.weights]
    assert fed.recipe == dataclasses.replace(plain.recipe, weight=rules[0], finish=rules[1])
    assert (plain.feeds_back, fed.feeds_back) == (False, True)
    for name in ("dvd-quant", "nobody:W4A4", "dvd-quant:A4", "dvd-quant:W4A4:", "dvd-quant:W4A4:nearest"):
        with pytest.raises(DvdqError):
            parse_methods("generate", [name])


def test_equal_videos_are_equal_files(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    paths = [tmp_path / "a.mkv", tmp_path / "b.mkv"]
    for path in paths:
        write_lossless(path, frames)
        assert np.array_equal(read_mp4(path), frames)
    assert paths[0].read_bytes() == paths[1].read_bytes()
