"""The demo: a study of a bundled model on unseen prompts, made and measured as every other, in one folder."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dvdq_eval.contact_sheet import contact_sheet, side_by_side
from dvdq_eval.demo.page import demo_page
from dvdq_eval.demo.results import Results, Video
from dvdq_eval.internals import ChannelPeaks, PeakRecorder, layer_errors
from dvdq_eval.machine import provenance
from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.progress import Tell
from dvdq_eval.records import complete_folder, write_record, write_text
from dvdq_eval.report.parts import ReportVideo
from dvdq_eval.tables.build import measured
from dvdq_eval.tables.catalogue import ours, plus
from dvdq_eval.tables.rows import summary_of
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.prepare import Pipelines, trials_of, tuned
from dvdq_eval.videos.records import Quality
from dvdq_eval.videos.store import MethodFolder, Store
from dvdq_eval.videos.study import Job, Study
from dvdq_models.families import family_of
from dvdq_models.moving_shapes.clips import Scene, split_scenes
from dvdq_models.running.video import Frames, enlarge, write_mp4
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

SWITCHING = ours("W4A6")
METHODS = (
    FULL_PRECISION,
    plus("W4A4").with_feedback(),
    plus("W4A4"),
    ours("W4A8"),
    SWITCHING,
    ours("W4A4"),
    Method.named("MinMax", "minmax", "W4A4"),
)
"""As they are shown: what one would take first."""
CONTENTS = frozenset({"videos", "latents", "side-by-side.mp4", "contact-sheet.png", "results.json", "report.html"})
SCALE = 4
"""Pixels a side that a pixel of the model's small frames takes in a video file."""


def demo_study(family: str, prompts: int, seed: int, steps: int | None) -> Study:
    """Scenes that the model never saw in training, and one that it did to choose δ on.

    Scenes are chosen by ``seed``, and the video of scene i starts from the noise of ``seed + i``.
    """
    study = Study.bundled(family, steps=steps)
    chosen = tuple(scene.prompt for scene in choose_scenes(prompts, seed))
    return dataclasses.replace(study, prompts=chosen, preparing=study.preparing[:1], first_seed=seed)


def run_demo(study: Study, out: Path, tell: Tell) -> Results:
    """Compare all methods on the study's prompts and write the folder ``out``, complete or not at all.

    Args:
        study: as :func:`demo_study` makes it.
        out: the folder to write; an earlier demo there is replaced.
        tell: told of progress.
    """
    started = time.perf_counter()
    with complete_folder(out, CONTENTS) as folder, tempfile.TemporaryDirectory() as kept:
        store = Store(Path(kept), study, tell)
        pipelines = Pipelines(store, tell)
        original, _ = pipelines.load(FULL_PRECISION)
        peaks = _peaks(store, original, pipelines, tell)
        # What shares weights comes last, so that they are still there to be looked into.
        fill_wholly(store, sorted(METHODS, key=lambda m: m.label == SWITCHING.label), tell, "demo", pipelines=pipelines)
        quantized, _ = pipelines.load(tuned(store, SWITCHING))
        switch, found = trials_of(store, SWITCHING), {method: measured(store, method, tell) for method in METHODS}
        assert switch is not None
        results = Results(
            rows=[summary_of(found[method]) for method in METHODS],
            videos=[
                Video(method.label, method.bits, video.record, video.quality or Quality())
                for method in METHODS
                for video in found[method].videos
            ],
            switch=switch,
            layers=layer_errors(original.transformer, quantized.transformer),
            activations=peaks,
            provenance={
                **provenance(),
                "model": study.name,
                "seed": study.first_seed,
                "settings": dict(study.settings),
                "recipes": {m.slug: tuned(store, m).to_dict()["recipe"] for m in METHODS[1:]},
            },
        )
        results.provenance["seconds"] = round(time.perf_counter() - started, 1)
        folders = {method: store.method(tuned(store, method)) for method in METHODS}
        write_folder(folder, results, study.jobs, folders, tell)
    return results


def _peaks(store: Store, original: Any, pipelines: Pipelines, tell: Tell) -> ChannelPeaks:
    """The activations of one layer while full precision makes the first video."""
    rotation = Recipe.named("dvd-quant").rotation
    assert rotation is not None
    recorder = PeakRecorder(_probed_layer(original.transformer), rotation)
    # Who records slows the passes down: one video is enough, and the median of their seconds is that of the others.
    first = Store(store.folder.parent, dataclasses.replace(store.study, prompts=store.study.prompts[:1]), tell)
    with recorder.watching(original.transformer):
        fill_wholly(first, (FULL_PRECISION,), tell, "demo", pipelines=pipelines)
    return recorder.peaks


def _probed_layer(transformer: nn.Module) -> str:
    """The middle one of the second feed-forward linears: what follows an activation function has the outliers."""
    treatments = family_of(transformer).treatments(transformer)
    names = [name for name, how in treatments.items() if how == "quantize" and name.endswith(".net.2")]
    return names[len(names) // 2]


def choose_scenes(count: int, seed: int) -> tuple[Scene, ...]:
    """``count`` scenes that the model never saw in training, varied in their words.

    Scenes are shuffled with ``seed``; each next one is the first that adds the most words not shown yet. No result is
    looked at.
    """
    _, unseen = split_scenes()
    if not 1 <= count <= len(unseen):
        raise DvdqError("demo", where="prompts", expected=f"1 to {len(unseen)}", got=count)
    left = [unseen[i] for i in np.random.default_rng(seed).permutation(len(unseen))]
    chosen: list[Scene] = []
    for _ in range(count):
        shown = {word for scene in chosen for word in enumerate(astuple(scene))}
        best = max(left, key=lambda scene: len(set(enumerate(astuple(scene))) - shown))
        left.remove(best)
        chosen.append(best)
    return tuple(chosen)


def write_folder(
    folder: Path,
    results: Results,
    jobs: Sequence[Job],
    outcome: Mapping[Method, MethodFolder],
    tell: Tell,
) -> None:
    """Write everything into ``folder``, which is empty.

    ``videos/<method>/<prompt>.mp4`` and ``latents/<method>/<prompt>.npy`` are numbered from 1, so that two methods'
    folders can be compared file by file.
    """
    methods, prompts = list(outcome), [job.prompt for job in jobs]
    clips: dict[Method, list[Frames]] = {}
    total = len(methods) * len(prompts)
    shown: list[list[ReportVideo]] = [[] for _ in prompts]
    for column, method in enumerate(methods):
        for kind in ("videos", "latents"):
            (folder / kind / method.slug).mkdir(parents=True)
        clips[method] = [outcome[method].frames(job) for job in jobs]
        for row, (job, clip) in enumerate(zip(jobs, clips[method], strict=True)):
            file = folder / "videos" / method.slug / f"{row + 1}.mp4"
            frames = enlarge(clip, SCALE)
            write_mp4(file, frames)
            np.save(folder / "latents" / method.slug / f"{row + 1}.npy", outcome[method].latents(job))
            shown[row].append(ReportVideo(file.read_bytes(), frames[len(frames) // 2]))
            tell("Writing videos", column * len(prompts) + row + 1, total)
    tell("Writing the report", 0, 3)
    titles, grid = [method.title for method in methods], list(zip(*clips.values(), strict=True))
    contact_sheet(prompts, titles, grid).save(folder / "contact-sheet.png", optimize=True)
    tell("Writing the report", 1, 3)
    write_mp4(folder / "side-by-side.mp4", side_by_side(prompts, titles, grid))
    tell("Writing the report", 2, 3)
    write_record(folder / "results.json", results)
    write_text(folder / "report.html", demo_page(results, prompts, shown))
    tell("Writing the report", 3, 3)
