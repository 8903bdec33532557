"""Videos, their quality, weight errors, latency and memory of one pipeline, and the page about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dvdq_eval.experiments.configuration import FULL_PRECISION, Configuration
from dvdq_eval.experiments.prepare import tuned
from dvdq_eval.experiments.store import Store, write_json, write_text
from dvdq_eval.experiments.study import Study
from dvdq_eval.latency.run import measure_latency
from dvdq_eval.latency.subject import open_subject
from dvdq_eval.latency.table import latency_markdown
from dvdq_eval.memory.run import measure_memory
from dvdq_eval.memory.table import memory_markdown
from dvdq_eval.progress import Tell
from dvdq_eval.report.write import write_report
from dvdq_eval.scale import generate_all
from dvdq_eval.tables.build import build_table
from dvdq_eval.tables.catalogue import Experiment, Line
from dvdq_eval.tables.figures import figure_3
from dvdq_eval.tables.markdown import table_markdown
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.placement import Offload
from dvdq_reference.spec.errors import DvdqError

OPERATION = "evaluate"
ROUNDS = 10
"""In which a pass of each method is timed."""


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

    ``out`` gets, beside it, ``methods.json`` and ``.md`` (quality, each method held against the first quantized one),
    ``figure-3.json`` (weight errors), ``latency`` and ``memory``. What is there of the videos is taken as it is. Of a
    model that is offloaded no pass is timed, as full precision is not on the device.

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
        DvdqError: videos that could not be made, or what the parts raise.
    """
    failures = generate_all(study, store, methods, tell, workers=workers, address=address, threads=threads)
    if failures:
        expected = f"{len(methods) * len(study.jobs)} videos"
        raise DvdqError(OPERATION, where=str(store.folder), expected=expected, got=f"{failures} .failed.json")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    _quality(study, store, methods, out, tell)
    figure_3(study, store, out, tell)
    _cost(study, store, methods, out, model, tell)
    return write_report([store.folder, out], out / "report.html", title=study.name, prompts=prompts, tell=tell)


def _quality(study: Study, store: Store, methods: Sequence[Configuration], out: Path, tell: Tell) -> None:
    quantized = [method for method in methods if method != FULL_PRECISION]
    lines = [Line(method, quantized[0] if method in quantized[1:] else None) for method in methods]
    claim = f"Each method is held against {quantized[0].title}." if quantized[1:] else ""
    table = build_table("methods", Experiment(f"Methods on {study.name}", tuple(lines), claim), study, store, tell)
    write_json(out / "methods.json", table.to_dict())
    write_text(out / "methods.md", table_markdown(table))


def _cost(study: Study, store: Store, methods: Sequence[Configuration], out: Path, model: str, tell: Tell) -> None:
    """Latency and memory of one pass at the study's own size; a switch's mix is that of the first video."""
    size = (
        None if model in BUNDLED else "x".join(str(study.settings[name]) for name in ("num_frames", "height", "width"))
    )
    subject, device = open_subject(OPERATION, model, size), torch.device(study.device)
    traces = [
        store.method(tuned(study, store, method, tell)).folder / f"{study.jobs[0].name}.json"
        for method in methods
        if method.average is not None
    ]
    if study.offload is Offload.NONE:
        latency = measure_latency(subject, methods, rounds=ROUNDS, device=device, traces=traces, tell=tell)
        write_json(out / "latency.json", latency.to_dict())
        write_text(out / "latency.md", latency_markdown(latency))
    memory = measure_memory(subject, methods, device=device, tell=tell)
    write_json(out / "memory.json", memory.to_dict())
    write_text(out / "memory.md", memory_markdown(memory))
