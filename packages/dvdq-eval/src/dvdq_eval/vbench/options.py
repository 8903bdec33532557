"""Options that say which videos: the same for making, scoring and reporting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvdq_eval.vbench.dimensions import DIMENSIONS
from dvdq_models.moving_shapes import BUNDLED

Pipeline = Annotated[str, typer.Option(help=f"A bundled pipeline ({', '.join(BUNDLED)}) or the folder of any other.")]
Method = Annotated[
    list[str] | None,
    typer.Option(help="RECIPE:BITS beside full precision, e.g. dvd-quant:W4A4; may be given again."),
]
Dimensions = Annotated[
    list[str] | None,
    typer.Option(
        "--dimension",
        help=f"{', '.join(DIMENSIONS)}; may be given again. Default: the paper's eight, without scene for prompts of "
        "one's own.",
    ),
]
Prompts = Annotated[
    str | None, typer.Option(help="standard, for VBench's own, or a file of one's own, one a line; not for bundled.")
]
Preparing = Annotated[
    Path | None, typer.Option(help="Other prompts, to calibrate and to choose δ on; not for bundled pipelines.")
]
Videos = Annotated[
    int | None,
    typer.Option(
        min=1, help="The first so many prompts, of VBench's own for each dimension; default: all, or 64 bundled."
    ),
]
Samples = Annotated[int | None, typer.Option(min=1, help="Videos of each prompt. Default: 5 of VBench's own, else 1.")]
Steps = Annotated[int | None, typer.Option(min=4, help="Denoising steps; default: the pipeline's.")]
Settings = Annotated[
    str | None, typer.Option(help='Further arguments of the pipeline\'s call as JSON: {"height": 480}.')
]
Stored = Annotated[Path, typer.Option(help="Folder that keeps every video; a run goes on with what is there.")]
Device = Annotated[str, typer.Option(help="That the pipeline runs on: cpu in float32, or cuda, … in bfloat16.")]

STORE = Path("out/videos")
