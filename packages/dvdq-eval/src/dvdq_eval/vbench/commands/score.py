"""``dvdq-eval vbench score``."""

from __future__ import annotations

from typing import Annotated

import typer

from dvdq_eval.experiments import options as videos_of
from dvdq_eval.progress import progress_bars
from dvdq_eval.vbench import options
from dvdq_eval.vbench.coverage import OPERATION, check_videos
from dvdq_eval.vbench.environment import vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.scoring import Judges, score_all
from dvdq_eval.vbench.study import open_asked
from dvdq_eval.vbench.weights import check_weights, weights_folder
from dvdq_models.running.placement import Offload


def score(
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
    python, asked = vbench_python(), open_asked(OPERATION, context.params)
    judges = Judges(Installed(python), weights_folder(), fps or float(asked.study.fps), judge, threads, timeout)
    check_weights(OPERATION, (dimension.name for dimension in asked.dimensions), judges.weights)
    check_videos(asked, partial=partial)
    with progress_bars() as tell:
        score_all(asked, judges, tell)
