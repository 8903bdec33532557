"""Options that ``latency`` and ``memory`` share."""

from __future__ import annotations

from typing import Annotated

import typer

from dvdq_eval.passes.subject import PUBLISHED
from dvdq_models.moving_shapes import BUNDLED

DEFAULT_METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A4")

Model = Annotated[
    str,
    typer.Argument(
        help=f"A bundled pipeline ({', '.join(BUNDLED)}), a published configuration with random weights "
        f"({', '.join(PUBLISHED)}), a folder of a pipeline or transformer, or a config.json."
    ),
]
Video = Annotated[
    str | None, typer.Option(help="Frames x height x width, e.g. 81x480x832; a bundled pipeline has its own.")
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help=f"RECIPE:BITS; may be given again. Default: {' and '.join(DEFAULT_METHODS)}."),
]
TextTokens = Annotated[int | None, typer.Option(min=1, help="Of the prompt; default: the pipeline's.")]
Random = Annotated[bool, typer.Option("--random", help="Random weights, whatever is in the folder.")]
