"""``dvdq-eval table NAME``: one table or figure, its videos made where they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvdq_eval.cli import options
from dvdq_eval.cli.options import StudyOptions, takes
from dvdq_eval.progress import progress_bars
from dvdq_eval.tables.build import NAMES, judge_by_vbench, make, needed
from dvdq_eval.tables.catalogue import EXPERIMENTS
from dvdq_eval.videos.fill import fill_wholly
from dvdq_eval.videos.store import Store
from dvdq_models.cli.console import say
from dvdq_reference.spec.errors import DvdqError


@takes(StudyOptions)
def table(
    asked: StudyOptions,
    names: Annotated[list[str], typer.Argument(help=f"Which: {', '.join(NAMES)}, or all.")],
    out: Annotated[Path, typer.Option(help="Folder to write tables and figures to.")] = Path("out/tables"),
    store: options.Stored = options.STORE,
    peers: Annotated[
        bool, typer.Option(help="Also other people's packages, each in an environment made for it.")
    ] = True,
    vbench: Annotated[
        list[str] | None,
        typer.Option(help="Also a dimension of VBench, of `dvdq-eval vbench setup`; may be given again."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(min=1.0, help="Frames a second that VBench is told; default: the model's.")
    ] = None,
    judge: Annotated[str, typer.Option(help="That VBench's judges run on: cpu, or cuda.")] = "cpu",
    bits: Annotated[
        list[str] | None, typer.Option(help="Rows of these widths alone, e.g. W4A4; may be given again.")
    ] = None,
    workers: options.Workers = 1,
    address: options.Address = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads, of each worker; default: torch's choice, of a worker 1.")
    ] = None,
) -> None:
    """Repeat the paper's tables and figures, and those beyond it, on a model of yours; resumable."""
    options.set_threads(threads)
    chosen = list(NAMES) if names == ["all"] else [f"table-{name}" if name.isdigit() else name for name in names]
    for name in chosen:
        if name not in NAMES:
            raise DvdqError("table", where=name, expected=f"one of {', '.join(NAMES)}, or all", got=repr(name))
    if vbench and not set(chosen) & EXPERIMENTS.keys():
        raise DvdqError("table", where="--vbench", expected="a table of videos", got=", ".join(chosen))
    study = asked.open("table")
    with progress_bars() as tell:
        kept = Store(store, study, tell)
        ask = judge_by_vbench(kept, vbench, fps or float(study.fps), judge, tell) if vbench else None
        methods = needed(chosen, peers=peers, bits=bits or ())
        fill_wholly(kept, methods, tell, "table", workers=workers, address=address, threads=threads)
        for name in chosen:
            written = make(name, kept, out, peers=peers, tell=tell, bits=bits or (), judge=ask)
            say(written, "")
