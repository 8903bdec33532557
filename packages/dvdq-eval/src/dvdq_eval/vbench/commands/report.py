"""``dvdq-eval vbench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from dvdq_eval.experiments import options as videos_of
from dvdq_eval.experiments.store import write_json, write_text
from dvdq_eval.vbench import options
from dvdq_eval.vbench.report import build_report, report_markdown
from dvdq_eval.vbench.study import open_asked
from dvdq_models.running.placement import Offload


def report(
    context: typer.Context,
    pipeline: videos_of.Pipeline = "wan",
    method: videos_of.Method = None,
    dimension: options.Dimensions = None,
    prompts: options.Prompts = None,
    preparing: videos_of.Preparing = None,
    videos: options.Videos = None,
    samples: options.Samples = None,
    steps: videos_of.Steps = None,
    settings: videos_of.Settings = None,
    store: videos_of.Stored = videos_of.STORE,
    device: videos_of.Device = "cpu",
    offload: videos_of.OffloadTo = Offload.NONE,
    out: Annotated[Path, typer.Option(help="Folder for vbench.json and vbench.md.")] = Path("out/vbench"),
) -> None:
    """A table of the scores that there are, × 100, with the paper's."""
    asked = open_asked("vbench report", context.params)
    built = build_report(asked, only=asked.dimensions if dimension else ())
    text = report_markdown(built)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "vbench.json", built.to_dict())
    write_text(out / "vbench.md", text)
    Console().print(Markdown(text))
