"""Videos, their quality, weight errors, latency and memory of one pipeline, and the page about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dvdq_eval.device import open_device
from dvdq_eval.experiments.configuration import FULL_PRECISION, Configuration
from dvdq_eval.experiments.prepare import prepared_files, tuned
from dvdq_eval.experiments.store import Store, write_json, write_text
from dvdq_eval.experiments.study import Study
from dvdq_eval.latency.run import measure_latency
from dvdq_eval.latency.subject import Subject, open_subject
from dvdq_eval.latency.table import latency_markdown
from dvdq_eval.latency.videos import Mix
from dvdq_eval.memory.run import measure_memory
from dvdq_eval.memory.table import memory_markdown
from dvdq_eval.progress import Tell
from dvdq_eval.report.write import write_report
from dvdq_eval.scale import generate_all
from dvdq_eval.staging import complete_folder
from dvdq_eval.tables.build import build_table
from dvdq_eval.tables.catalogue import Experiment, Line
from dvdq_eval.tables.figures import figure_3
from dvdq_eval.tables.markdown import table_markdown
from dvdq_models.running.placement import Offload
from dvdq_reference.spec.errors import DvdqError

OPERATION = "evaluate"
MEASURED = "measured"
"""The folder of what is not videos."""
CONTENTS = frozenset(
    {"figure-3.json", "figure-3.png"}
    | {f"{name}.{kind}" for name in ("methods", "latency", "memory") for kind in ("json", "md")}
)
ROUNDS = 10
"""In which a pass of each method is timed."""
SIZE = ("num_frames", "height", "width")


def evaluate(
    study: Study,
    store: Store,
    methods: Sequence[Configuration],
    out: Path,
    *,
    model: str,
    workers: int,
    address: str | None,
    threads: int,
    prompts: int,
    tell: Tell,
) -> Path:
    """Measure all that there is to measure of ``methods`` and write ``report.html``, whose path is returned.

    Beside it ``out`` gets the folder :data:`MEASURED`: quality in ``methods.json`` and ``.md``, each method held
    against the first quantized one of its width, weight errors in ``figure-3.json``, ``latency`` and ``memory``. What
    is there of the videos is taken as it is. Of a model that is offloaded no pass is timed, as full precision is not on
    the device.

    Args:
        study: the pipeline, prompts and noise.
        store: of its videos.
        methods: full precision first.
        out: folder to write to.
        model: as :func:`dvdq_eval.latency.subject.open_subject` takes it.
        workers, address, threads: of :func:`dvdq_eval.scale.generate_all`; latency has as many threads.
        prompts: whose videos the page shows.
        tell: told of progress.

    Raises:
        DvdqError: what cannot be measured, before the first video; videos that could not be made.
    """
    subject, device = _subject(study, model), open_device(OPERATION, study.device)
    if not study.preparing and any(prepared_files(store, method) for method in methods):
        expected = "prompts besides those that are measured, which choose δ and calibrate"
        raise DvdqError(OPERATION, where="--prompts", expected=expected, got="none")
    failures = generate_all(study, store, methods, tell, workers=workers, address=address, threads=threads)
    if failures:
        expected = f"{len(methods) * len(study.jobs)} videos"
        raise DvdqError(OPERATION, where=str(store.folder), expected=expected, got=f"{failures} .failed.json")
    torch.set_num_threads(threads)
    with complete_folder(out / MEASURED, CONTENTS) as folder:
        _quality(study, store, methods, folder, tell)
        figure_3(study, store, folder, tell)
        _cost(study, store, methods, folder, subject, device, tell)
    page = out / "report.html"
    return write_report([store.folder, out / MEASURED], page, title=study.name, prompts=prompts, tell=tell)


def _subject(study: Study, model: str) -> Subject:
    """The study's transformer on the study's size."""
    if missing := [name for name in SIZE if name not in study.settings]:
        raise DvdqError(OPERATION, where="--settings", expected=", ".join(SIZE), got=f"no {missing[0]}")
    size = "x".join(str(study.settings[name]) for name in SIZE)
    return open_subject(OPERATION, model, size, text_tokens=study.settings.get("max_sequence_length"))


def _quality(study: Study, store: Store, methods: Sequence[Configuration], out: Path, tell: Tell) -> None:
    rivals: dict[str, Configuration] = {}
    for method in methods:
        if method != FULL_PRECISION:
            rivals.setdefault(method.bits, method)
    lines = [Line(method, None if method in rivals.values() else rivals.get(method.bits)) for method in methods]
    claim = "Each method is held against the first of its width."
    table = build_table("methods", Experiment(f"Methods on {study.name}", tuple(lines), claim), study, store, tell)
    write_json(out / "methods.json", table.to_dict())
    write_text(out / "methods.md", table_markdown(table))


def _cost(
    study: Study,
    store: Store,
    methods: Sequence[Configuration],
    out: Path,
    subject: Subject,
    device: torch.device,
    tell: Tell,
) -> None:
    """Latency and memory of one pass; the mix of a method that switches is that of its first video."""
    if study.offload is Offload.NONE:
        records = {m.label: store.method(tuned(study, store, m, tell)).folder for m in methods if m.average is not None}
        latency = measure_latency(
            subject,
            methods,
            rounds=ROUNDS,
            device=device,
            mixes=[Mix.of(OPERATION, at / f"{study.jobs[0].name}.json", label) for label, at in records.items()],
            steps=study.settings.get("num_inference_steps"),
            passes=1 if study.settings.get("guidance_scale", 2.0) <= 1.0 else None,
            tell=tell,
        )
        if any(method.step.rounds < ROUNDS for method in latency.methods):
            raise KeyboardInterrupt
        write_json(out / "latency.json", latency.to_dict())
        write_text(out / "latency.md", latency_markdown(latency))
    memory = measure_memory(subject, methods, device=device, tell=tell)
    write_json(out / "memory.json", memory.to_dict())
    write_text(out / "memory.md", memory_markdown(memory))
