"""Options of commands that make or find videos of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import Offload

_PIPELINE = f"A bundled pipeline ({', '.join(BUNDLED)}) or the folder of any other."

Pipeline = Annotated[str, typer.Option(help=_PIPELINE)]
PipelineArgument = Annotated[str, typer.Argument(help=_PIPELINE)]
Method = Annotated[
    list[str] | None,
    typer.Option(help="RECIPE:BITS beside full precision, e.g. dvd-quant:W4A6; may be given again."),
]
Steps = Annotated[int | None, typer.Option(min=4, help="Denoising steps; default: the pipeline's.")]
Prompts = Annotated[
    Path | None, typer.Option(help="A file with one prompt a line, of which the first are measured; not for bundled.")
]
Preparing = Annotated[
    Path | None,
    typer.Option(
        help="Other prompts, to calibrate and to choose δ on; default: those of --prompts that are not measured."
    ),
]
Settings = Annotated[
    str | None,
    typer.Option(help='The pipeline\'s call as JSON: {"num_frames": 81, "height": 480, "width": 832}.'),
]
Stored = Annotated[Path, typer.Option(help="Folder that keeps every video; a run goes on with what is there.")]
Device = Annotated[
    Literal["cpu", "cuda"], typer.Option(help="That the pipeline runs on: cpu in float32, or cuda in bfloat16.")
]
OffloadTo = Annotated[
    Offload, typer.Option("--offload", help="For models that do not fit: keep the part, or the layers, at work there.")
]
Workers = Annotated[int, typer.Option(min=1, help="Pipelines at once, by Ray; on GPUs, one each.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster, e.g. auto; default: this machine.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each worker; other counts, other rounding.")]

STORE = Path("out/videos")
