"""Videos, their quality, weight errors, latency and memory of one pipeline, and the page about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dvdq_eval.latency.results import latency_markdown
from dvdq_eval.latency.run import measure_latency
from dvdq_eval.latency.videos import Mix
from dvdq_eval.machine import open_device
from dvdq_eval.memory.results import memory_markdown
from dvdq_eval.memory.run import measure_memory
from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.passes.subject import Subject, open_subject
from dvdq_eval.progress import Tell
from dvdq_eval.records import complete_folder, write_result
from dvdq_eval.report.write import write_report
from dvdq_eval.sheets import markdown
from dvdq_eval.tables.build import build_table
from dvdq_eval.tables.catalogue import Experiment, Line
from dvdq_eval.tables.figures import figure_3
from dvdq_eval.tables.sheets import table_sheet
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.prepare import prepared_files, tuned
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models.running.placement import Offload
from dvdq_reference.spec.errors import DvdqError

OPERATION = "evaluate"
MEASURED = "measured"
"""The folder of what is not videos."""
CONTENTS = frozenset(
    {"figure-3.json", "figure-3.svg"}
    | {f"{name}.{kind}" for name in ("methods", "latency", "memory") for kind in ("json", "md")}
)
ROUNDS = 10
"""In which a pass of each method is timed."""
SIZE = ("num_frames", "height", "width")


def evaluate(
    store: Store,
    methods: Sequence[Method],
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
        store: of the videos, and of the pipeline, prompts and noise that they are made with.
        methods: full precision first.
        out: folder to write to.
        model: as :func:`dvdq_eval.passes.subject.open_subject` takes it.
        workers, address, threads: of :func:`dvdq_eval.videos.fill.fill`; latency has as many threads.
        prompts: whose videos the page shows.
        tell: told of progress.

    Raises:
        DvdqError: what cannot be measured, before the first video; videos that could not be made.
    """
    study = store.study
    subject, device = _subject(study, model), open_device(OPERATION, study.device)
    if not study.preparing and any(prepared_files(store, method) for method in methods):
        expected = "prompts besides those that are measured, which choose δ and calibrate"
        raise DvdqError(OPERATION, where="--prompts", expected=expected, got="none")
    fill_wholly(store, methods, tell, OPERATION, workers=workers, address=address, threads=threads)
    torch.set_num_threads(threads)
    with complete_folder(out / MEASURED, CONTENTS) as folder:
        _quality(store, methods, folder, tell)
        figure_3(store, folder, tell)
        _cost(store, methods, folder, subject, device, tell)
    page = out / "report.html"
    return write_report([store.folder, out / MEASURED], page, title=study.name, prompts=prompts, tell=tell)


def _subject(study: Study, model: str) -> Subject:
    """The study's transformer on the study's size."""
    if missing := [name for name in SIZE if name not in study.settings]:
        raise DvdqError(OPERATION, where="--settings", expected=", ".join(SIZE), got=f"no {missing[0]}")
    size = "x".join(str(study.settings[name]) for name in SIZE)
    return open_subject(OPERATION, model, size, text_tokens=study.settings.get("max_sequence_length"))


def _quality(store: Store, methods: Sequence[Method], out: Path, tell: Tell) -> None:
    rivals: dict[str, Method] = {}
    for method in methods:
        if method != FULL_PRECISION:
            rivals.setdefault(method.bits, method)
    lines = [Line(method, None if method in rivals.values() else rivals.get(method.bits)) for method in methods]
    claim = "Each method is held against the first of its width."
    table = build_table("methods", Experiment(f"Methods on {store.study.name}", tuple(lines), claim), store, tell)
    write_result(out, "methods", table, markdown(table_sheet(table)))


def _cost(
    store: Store,
    methods: Sequence[Method],
    out: Path,
    subject: Subject,
    device: torch.device,
    tell: Tell,
) -> None:
    """Latency and memory of one pass; the mix of a method that switches is that of its first video."""
    study = store.study
    if study.offload is Offload.NONE:
        records = {m.label: store.method(tuned(store, m)).folder for m in methods if m.average is not None}
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
        write_result(out, "latency", latency, latency_markdown(latency))
    memory = measure_memory(subject, methods, device=device, tell=tell)
    write_result(out, "memory", memory, memory_markdown(memory))
