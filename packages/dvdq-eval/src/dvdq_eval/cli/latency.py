"""``dvdq-eval latency MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markdown import Markdown

from dvdq_eval.cli import options
from dvdq_eval.latency.results import latency_markdown
from dvdq_eval.latency.run import OPERATION, measure_latency
from dvdq_eval.latency.videos import Mix
from dvdq_eval.machine import open_device
from dvdq_eval.methods import parse_methods
from dvdq_eval.passes.subject import open_subject
from dvdq_eval.progress import progress_bars
from dvdq_eval.records import complete_folder, write_result
from dvdq_models.cli.console import console, say

CONTENTS = frozenset({"latency.json", "latency.md"})


def latency(
    model: options.Model = "wan",
    video: options.Video = None,
    methods: options.PassMethods = None,
    rounds: Annotated[int, typer.Option(min=1, help="In which methods take turns, after one that warms up.")] = 10,
    traces: Annotated[
        list[Path] | None,
        typer.Option("--trace", help="JSON record of a video, whose mix of widths is added up; may be given again."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of a video at one width; default: the first trace's, or the pipeline's.")
    ] = None,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Of the transformer in a step; default: 2 of Wan, 1 of HunyuanVideo.")
    ] = None,
    attention: Annotated[
        str | None, typer.Option(help="An attention backend of diffusers: native, sage, flash, …")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile blocks with torch.compile; parts are still of eager passes.")
    ] = False,
    text_tokens: options.TextTokens = None,
    random: options.Random = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="cpu in float32, cuda in bfloat16.")] = "cpu",
    threads: options.OwnThreads = None,
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier result there is replaced.")] = Path(
        "out/latency"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print latency.json instead of tables.")] = False,
) -> None:
    """How long one pass of a transformer takes by each method, where the time goes, and what a video takes."""
    options.set_threads(threads)
    place = open_device(OPERATION, device)
    configurations = parse_methods(OPERATION, methods or options.DEFAULT_METHODS)
    subject = open_subject(OPERATION, model, video, text_tokens=text_tokens, random=random)
    with complete_folder(out, CONTENTS) as folder, progress_bars() as tell:
        measured = measure_latency(
            subject,
            configurations,
            rounds=rounds,
            device=place,
            attention=attention,
            compiled=compiled,
            mixes=[Mix.of(OPERATION, path) for path in traces or ()],
            steps=steps,
            passes=passes,
            tell=tell,
        )
        write_result(folder, "latency", measured, latency_markdown(measured))
    if as_json:
        typer.echo((out / "latency.json").read_text(encoding="utf-8"), nl=False)
        return
    console.print(Markdown(latency_markdown(measured, layers=False)))
    say(out / "latency.json", "")
