"""``dvdq-eval vbench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from dvdq_eval.records import write_record, write_text
from dvdq_eval.vbench.report import build_report, report_markdown
from dvdq_eval.vbench.study import VBenchOptions
from dvdq_eval.videos.options import takes


@takes(VBenchOptions)
def report(
    given: VBenchOptions,
    out: Annotated[Path, typer.Option(help="Folder for vbench.json and vbench.md.")] = Path("out/vbench"),
) -> None:
    """A table of the scores that there are, × 100, with the paper's."""
    asked = given.ask("vbench report")
    built = build_report(asked, only=asked.dimensions if given.dimension else ())
    text = report_markdown(built)
    out.mkdir(parents=True, exist_ok=True)
    write_record(out / "vbench.json", built.to_dict())
    write_text(out / "vbench.md", text)
    Console().print(Markdown(text))
