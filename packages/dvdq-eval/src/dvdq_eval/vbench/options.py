"""Options that say which videos: the same for making, scoring and reporting them."""

from __future__ import annotations

from typing import Annotated

import typer

from dvdq_eval.vbench.dimensions import DIMENSIONS

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
Videos = Annotated[
    int | None,
    typer.Option(
        min=1, help="The first so many prompts, of VBench's own for each dimension; default: all, or 64 bundled."
    ),
]
Samples = Annotated[int | None, typer.Option(min=1, help="Videos of each prompt. Default: 5 of VBench's own, else 1.")]
