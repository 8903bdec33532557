"""``dvdq-eval table NAME``: one table or figure, its videos made where they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from dvdq_eval.experiments import options
from dvdq_eval.experiments.opening import open_study
from dvdq_eval.experiments.store import Store
from dvdq_eval.progress import progress_bars
from dvdq_eval.tables.all import NAMES, make, make_share
from dvdq_eval.tables.catalogue import EXPERIMENTS
from dvdq_eval.tables.judging import judge_by_vbench
from dvdq_models.running.placement import Offload
from dvdq_reference.spec.errors import DvdqError


def table(
    names: Annotated[list[str], typer.Argument(help=f"Which: {', '.join(NAMES)}, or all.")],
    pipeline: options.Pipeline = "wan",
    videos: Annotated[int, typer.Option(min=2, help="Videos of each method, from as many prompts.")] = 64,
    steps: options.Steps = None,
    prompts: options.Prompts = None,
    preparing: options.Preparing = None,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="Folder to write tables and figures to.")] = Path("out/tables"),
    store: options.Stored = options.STORE,
    peers: Annotated[bool, typer.Option(help="Also OrbitQuant and SDNQ, each in an environment made for it.")] = True,
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
    share: Annotated[
        str | None,
        typer.Option(help="Make the I-th of N parts of the videos and no table: 1/2. For several processes."),
    ] = None,
    device: options.Device = "cpu",
    offload: options.OffloadTo = Offload.NONE,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
) -> None:
    """Repeat the paper's tables and figures, and those beyond it, on a model of yours; resumable."""
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = list(NAMES) if names == ["all"] else [f"table-{name}" if name.isdigit() else name for name in names]
    for name in chosen:
        if name not in NAMES:
            raise DvdqError("table", where=name, expected=f"one of {', '.join(NAMES)}, or all", got=repr(name))
    part = None if share is None else _part(share)
    if vbench and (part is not None or not set(chosen) & EXPERIMENTS.keys()):
        raise DvdqError("table", where="--vbench", expected="a table of videos, and no --share", got=", ".join(chosen))
    study = open_study(
        "table",
        pipeline,
        videos=videos,
        steps=steps,
        prompts=prompts,
        preparing=preparing,
        settings=settings,
        device=device,
        offload=offload,
    )
    kept = Store(store, study)
    with progress_bars() as tell:
        ask = judge_by_vbench(study, kept, vbench, fps or float(study.fps), judge, tell) if vbench else None
        if part is not None:
            make_share(chosen, study, kept, part, peers=peers, tell=tell, bits=bits or ())
            return
        for name in chosen:
            written = make(name, study, kept, out, peers=peers, tell=tell, bits=bits or (), judge=ask)
            Console().print(f"[bold]{written}[/bold]", soft_wrap=True, highlight=False)


def _part(text: str) -> tuple[int, int]:
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise DvdqError("table", where="--share", expected="I/N with 1 <= I <= N", got=repr(text))
    return int(first) - 1, int(count)
