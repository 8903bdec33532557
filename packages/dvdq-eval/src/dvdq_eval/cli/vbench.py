"""VBench's scores, by its own code in an environment of its own."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markdown import Markdown
from rich.table import Table

from dvdq_eval.cli import options
from dvdq_eval.cli.generate import tell_failures
from dvdq_eval.cli.options import STORE, PipelineOptions, StudyOptions, read_settings, takes
from dvdq_eval.methods import parse_methods
from dvdq_eval.progress import Tell, progress_bars, silent
from dvdq_eval.records import write_result
from dvdq_eval.vbench.dimensions import DIMENSIONS, SAMPLES, Dimension, StandardStudy, chosen
from dvdq_eval.vbench.installed import SERIES, Installed, plant, set_up, vbench_python
from dvdq_eval.vbench.report import build_report, report_markdown
from dvdq_eval.vbench.scoring import Judges, score_all
from dvdq_eval.vbench.study import OPERATION, Asked, check_videos
from dvdq_eval.vbench.weights import CACHE_VARIABLE, check_weights, is_path_check, missing_files, weights_folder
from dvdq_eval.videos.fill import fill
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models.cli.console import console, say
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import check_offload
from dvdq_models.running.prompts import read_prompts

STANDARD = "standard"
BUNDLED_VIDEOS = 64

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
    say(installed.python, f": {versions}")
    say(folder, f": weights; {CACHE_VARIABLE} names another folder")
    console.print(_weights(folder))


@app.command("plant")
def plant_weights(
    folder: Annotated[Path, typer.Argument(help=f"A new folder, for {CACHE_VARIABLE} to name.")],
) -> None:
    """Random weights for every judge: VBench's real code runs, and its scores mean nothing."""
    plant(vbench_python(), folder)
    say(folder, f": with {CACHE_VARIABLE} naming it, every score is a path check")


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


@dataclass(frozen=True, kw_only=True)
class VBenchOptions(PipelineOptions):
    """Which videos are meant, and which dimensions: the same for making, scoring and reporting them."""

    method: options.Methods = None
    dimension: Annotated[
        list[str] | None,
        typer.Option(
            "--dimension",
            help=f"{', '.join(DIMENSIONS)}; may be given again. Default: the paper's eight, without scene for prompts "
            "of one's own.",
        ),
    ] = None
    prompts: Annotated[
        str | None,
        typer.Option(help="standard, for VBench's own, or a file of one's own, one a line; not for bundled."),
    ] = None
    videos: Annotated[
        int | None,
        typer.Option(
            min=1, help="The first so many prompts, of VBench's own for each dimension; default: all, or 64 bundled."
        ),
    ] = None
    samples: Annotated[
        int | None, typer.Option(min=1, help="Videos of each prompt. Default: 5 of VBench's own, else 1.")
    ] = None
    store: options.Stored = STORE

    def ask(self, operation: str, tell: Tell = silent) -> Asked:
        """What VBench is asked; ``operation`` is for errors."""
        check_offload(operation, self.device, self.offload)
        standard = self.prompts == STANDARD
        dimensions = chosen(operation, tuple(self.dimension or ()), standard=standard)
        study = self._standard(operation, dimensions) if standard else self._own(operation)
        methods = parse_methods(operation, self.method or ())
        return Asked(Store(self.store, study, tell), methods, dimensions)

    def _own(self, operation: str) -> Study:
        """Videos of a bundled pipeline's own prompts, or of a file of them."""
        default = BUNDLED_VIDEOS if self.pipeline in BUNDLED else sys.maxsize
        prompts = None if self.prompts is None else Path(self.prompts)
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(PipelineOptions)}
        videos = default if self.videos is None else self.videos
        return StudyOptions(**shared, videos=videos, prompts=prompts).open(operation, self.samples or 1)

    def _standard(self, operation: str, dimensions: tuple[Dimension, ...]) -> StandardStudy:
        """Videos of VBench's own prompts."""
        prompts = Installed(vbench_python()).prompts
        texts = tuple(prompt.text for prompt in prompts)
        if self.pipeline in BUNDLED:
            base = dataclasses.replace(self, videos=None, prompts=None)._own(operation)
        else:
            preparing = () if self.preparing is None else read_prompts(operation, self.preparing)
            settings = read_settings(operation, self.settings, self.steps)
            base = Study.of(Path(self.pipeline), texts, preparing, settings, self.device)
        kept = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
        changed = {"prompts": texts, "samples": self.samples or SAMPLES}
        return StandardStudy(**{**kept, **changed}, standard=prompts, dimensions=dimensions, first=self.videos)


@app.command()
@takes(VBenchOptions)
def generate(
    given: VBenchOptions,
    workers: options.Workers = 1,
    address: options.Address = None,
    threads: options.Threads = 1,
) -> None:
    """Make the videos that the dimensions need, of full precision and of methods; resumable."""
    with progress_bars() as tell:
        asked = given.ask("vbench generate", tell)
        failures = fill(asked.store, asked.methods, tell, workers=workers, address=address, threads=threads)
    say(asked.store.folder, "")
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
    write_result(out, "vbench", built.to_dict(), text)
    console.print(Markdown(text))
