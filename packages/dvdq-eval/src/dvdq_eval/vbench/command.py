"""VBench's scores, by its own code in an environment of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from dvdq_eval.progress import progress_bars
from dvdq_eval.records import write_record, write_text
from dvdq_eval.vbench.dimensions import DIMENSIONS
from dvdq_eval.vbench.environment import SERIES, plant, set_up, vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.report import build_report, report_markdown
from dvdq_eval.vbench.scoring import Judges, score_all
from dvdq_eval.vbench.study import OPERATION, VBenchOptions, check_videos
from dvdq_eval.vbench.weights import CACHE_VARIABLE, check_weights, is_path_check, missing_files, weights_folder
from dvdq_eval.videos import options as videos_of
from dvdq_eval.videos.command import tell_failures
from dvdq_eval.videos.fill import fill
from dvdq_eval.videos.options import takes

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def setup(
    python: Annotated[
        Path | None, typer.Option(help=f"A Python {SERIES} to make the environment from; default: this one.")
    ] = None,
) -> None:
    """Install VBench in an environment of its own (1.9 GB), and say which judges have their weights."""
    installed = Installed(set_up(python))
    versions = ", ".join(f"{name} {version}" for name, version in installed.versions.items())
    folder = weights_folder()
    _say(f"[bold]{installed.python}[/bold]: {versions}")
    _say(f"Weights in [bold]{folder}[/bold]; {CACHE_VARIABLE} names another folder")
    Console().print(_weights(folder))


@app.command("plant")
def plant_weights(
    folder: Annotated[Path, typer.Argument(help=f"A new folder, for {CACHE_VARIABLE} to name.")],
) -> None:
    """Random weights for every judge: VBench's real code runs, and its scores mean nothing."""
    plant(vbench_python(), folder)
    _say(f"[bold]{folder}[/bold]: with {CACHE_VARIABLE} naming it, every score is a path check")


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False)


def _weights(folder: Path) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("dimension", no_wrap=True)
    table.add_column("prompts", justify="right")
    table.add_column("what is missing, and where VBench takes it from", overflow="fold")
    for dimension in DIMENSIONS.values():
        missing = missing_files(dimension.name, folder)
        ready = "[green]ready[/green]" + (", random" if is_path_check(dimension.name, folder) else "")
        told = "\n".join(f"{file.path}\n  {file.address}" for file in missing) or ready
        table.add_row(dimension.name, str(dimension.prompts), told)
    return table


@app.command()
@takes(VBenchOptions)
def generate(
    given: VBenchOptions,
    workers: videos_of.Workers = 1,
    address: videos_of.Address = None,
    threads: videos_of.Threads = 1,
) -> None:
    """Make the videos that the dimensions need, of full precision and of methods; resumable."""
    with progress_bars() as tell:
        asked = given.ask("vbench generate", tell)
        failures = fill(asked.store, asked.methods, tell, workers=workers, address=address, threads=threads)
    Console().print(f"[bold]{asked.store.folder}[/bold]", soft_wrap=True, highlight=False)
    tell_failures(failures, len(asked.methods) * len(asked.study.jobs))


@app.command()
@takes(VBenchOptions)
def score(
    given: VBenchOptions,
    judge: Annotated[str, typer.Option(help="That the judges run on: cpu, or cuda.")] = "cpu",
    fps: Annotated[
        float | None,
        typer.Option(min=1.0, help="Frames a second of the videos; default: 16 of Wan's, 24 of HunyuanVideo's."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Score what is there of videos that are not all made.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for loading a judge, and for each video.")] = 1800.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a judge.")] = 1,
) -> None:
    """Let VBench's own code judge the videos, one dimension after another; resumable, and nothing is downloaded."""
    python, asked = vbench_python(), given.ask(OPERATION)
    judges = Judges(Installed(python), weights_folder(), fps or float(asked.study.fps), judge, threads, timeout)
    check_weights(OPERATION, (dimension.name for dimension in asked.dimensions), judges.weights)
    check_videos(asked, partial=partial)
    with progress_bars() as tell:
        score_all(asked, judges, tell)


@app.command()
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
