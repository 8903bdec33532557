"""The demo: a study of a bundled model on unseen prompts, made and measured as every other, in one folder."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from torch import nn

from dvdq_eval.demo.results import BitSwitching, Results, Row, Trace, Video
from dvdq_eval.demo.write import CONTENTS, write_folder
from dvdq_eval.internals import ChannelPeaks, PeakRecorder, layer_errors
from dvdq_eval.progress import Tell
from dvdq_eval.provenance import provenance
from dvdq_eval.records import complete_folder
from dvdq_eval.tables.catalogue import ours
from dvdq_eval.tables.rows import Measured
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.measure import measure_videos
from dvdq_eval.videos.method import FULL_PRECISION, Method
from dvdq_eval.videos.prepare import Pipelines, trials_of, tuned
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models.families import family_of
from dvdq_models.moving_shapes.clips import Scene, split_scenes
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

SWITCHING = ours("W4A6")
METHODS = (FULL_PRECISION, ours("W4A8"), SWITCHING, ours("W4A4"), Method.named("MinMax", "minmax", "W4A4"))
"""As they are shown."""


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
        measured = {method: _measured(store, method, tell) for method in METHODS}
        exact = _row(FULL_PRECISION, measured[FULL_PRECISION], None)
        results = Results(
            rows=[exact, *(_row(method, measured[method], exact) for method in METHODS[1:])],
            videos=[video for method in METHODS for video in _videos(method, measured[method])],
            trace=_bit_switching(store, measured[SWITCHING]),
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


def _measured(store: Store, method: Method, tell: Tell) -> Measured:
    folder = store.method(tuned(store, method))
    measure_videos(store, folder, store.method(FULL_PRECISION), method.title, tell)
    about = folder.about
    assert about is not None
    return Measured(folder.folder.name, about, [folder.video(job) for job in store.study.jobs])


def _row(method: Method, measured: Measured, exact: Row | None) -> Row:
    about, records = measured.about, [video.record for video in measured.videos]
    seconds = median(record.pass_seconds or 0.0 for record in records)
    means = {name: fmean(values) for name, values in measured.columns().items()}
    bits = [record.average_bits for record in records if record.average_bits is not None]
    return Row(
        method=method.label,
        bits=method.bits,
        bytes=about.bytes,
        compression=about.bytes_before / about.bytes,
        average_bits=fmean(bits) if bits else None,
        psnr_db=means.get("psnr_db"),
        ssim=means.get("ssim"),
        latent_error=means.get("latent_error"),
        adherence=_shares([dict(video.quality.words or {}) for video in measured.videos if video.quality is not None]),
        quantize_seconds=None if method.recipe is None else round(about.prepare_seconds, 2),
        video_seconds=round(seconds, 3),
        speedup=1.0 if exact is None else exact.video_seconds / seconds,
    )


def _shares(seen: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """For each word of a scene, the share of videos that show it."""
    return {word: fmean(words[word] for words in seen) for word in seen[0]}


def _videos(method: Method, measured: Measured) -> list[Video]:
    """Each video's own figures; full precision has no distance from itself."""
    found = []
    for video in measured.videos:
        assert video.quality is not None
        record, quality = video.record, video.quality
        figures = (quality.psnr_db, quality.ssim, quality.latent_error, quality.words or {})
        found.append(Video(method.label, method.bits, record.prompt, record.seed, *figures))
    return found


def _bit_switching(store: Store, measured: Measured) -> BitSwitching:
    found = trials_of(store, SWITCHING)
    assert found is not None
    records = [video.record for video in measured.videos]
    traces = [Trace(record.prompt, record.average_bits or 0.0, list(record.trace or ())) for record in records]
    return BitSwitching(found.delta, found.wanted, list(found.trials), traces)


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
