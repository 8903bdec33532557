"""``dvdq-eval memory MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.markdown import Markdown

from dvdq_eval.cli import options
from dvdq_eval.machine import open_device
from dvdq_eval.memory.results import memory_markdown
from dvdq_eval.memory.run import OPERATION, measure_memory
from dvdq_eval.methods import parse_methods
from dvdq_eval.passes.subject import open_subject
from dvdq_eval.progress import progress_bars
from dvdq_eval.records import complete_folder, write_result
from dvdq_models.cli.console import console, say

CONTENTS = frozenset({"memory.json", "memory.md"})


def memory(
    model: options.Model = "wan",
    video: options.Video = None,
    methods: options.PassMethods = None,
    text_tokens: options.TextTokens = None,
    random: options.Random = False,
    device: Annotated[
        Literal["none", "cpu", "cuda"] | None,
        typer.Option(
            help="Where a pass is run and measured: cpu in float32, cuda in bfloat16, none. Default: cuda where it is."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier result there is replaced.")] = Path(
        "out/memory"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print memory.json instead of tables.")] = False,
) -> None:
    """What a checkpoint weighs by each method, part by part, and the memory of one pass: counted, and measured."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "none")
    place = None if chosen == "none" else open_device(OPERATION, chosen)
    configurations = parse_methods(OPERATION, methods or options.DEFAULT_METHODS)
    subject = open_subject(OPERATION, model, video, text_tokens=text_tokens, random=random)
    with complete_folder(out, CONTENTS) as folder, progress_bars() as tell:
        measured = measure_memory(subject, configurations, device=place, tell=tell)
        write_result(folder, "memory", measured, memory_markdown(measured))
    if as_json:
        typer.echo((out / "memory.json").read_text(encoding="utf-8"), nl=False)
        return
    console.print(Markdown(memory_markdown(measured)))
    say(out / "memory.json", "")
