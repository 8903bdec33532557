"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dvdq_kernels.registry import offering
from dvdq_models.running.placement import FinishOn, Offload
from dvdq_reference.spec.recipe import NAMES

RecipeName = Annotated[str, typer.Option("--recipe", help=f"{', '.join(NAMES)}.")]
Bits = Annotated[str, typer.Option("--bits", help="W{weight}A{activation}: W4A8, W4A4, or W4A6, which switches.")]
Delta = Annotated[float | None, typer.Option("--delta", help="Threshold of the bit switch (W4A6 only).")]
FirstHigh = Annotated[
    int | None, typer.Option("--first-high", min=0, help="First steps that run at 8 bits whatever the schedule says.")
]
LastHigh = Annotated[
    int | None, typer.Option("--last-high", min=0, help="Last steps that do, which nothing after them corrects; try 2.")
]
Finish = Annotated[
    bool,
    typer.Option("--finish", help="Store each weight's rounding error too, in as many bits; the last steps add it."),
]
Feedback = Annotated[
    bool,
    typer.Option("--feedback", help="Round weights by what calibration saw of activations (dvdq calibrate --moments)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]
Backend = Annotated[str, typer.Option("--backend", help=f"auto, {', '.join(offering('quantized_linear'))}.")]

PipelineFolder = Annotated[Path, typer.Argument(help="A pipeline folder.")]
NegativePrompt = Annotated[str, typer.Option(help="What it should not show.")]
Height = Annotated[int | None, typer.Option(min=16, help="Default: the pipeline's own, as of all below.")]
Width = Annotated[int | None, typer.Option(min=16)]
Frames = Annotated[int | None, typer.Option(min=1)]
Steps = Annotated[int | None, typer.Option(min=1)]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance, two passes a step; 1 turns it off.")]
Guidance2 = Annotated[float | None, typer.Option("--guidance-2", help="The same for Wan 2.2's second expert.")]
EmbeddedGuidance = Annotated[float | None, typer.Option(help="HunyuanVideo's guidance in one pass.")]
TextTokens = Annotated[int | None, typer.Option(min=1, help="Longest prompt.")]
Image = Annotated[Path | None, typer.Option(help="The first frame, for image-to-video pipelines.")]
Seed = Annotated[int, typer.Option()]
Device = Annotated[str, typer.Option(help="cpu, cuda, …")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
Restart = Annotated[bool, typer.Option("--restart", help="Discard what an unfinished run left.")]
OffloadTo = Annotated[
    Offload,
    typer.Option("--offload", help="What waits in main memory: none, all but the model at work, or its layers."),
]
FinishPlace = Annotated[
    FinishOn,
    typer.Option(
        "--finish-on",
        help="Where codes that only the last steps take lie: host is main memory, from where they are brought.",
    ),
]
