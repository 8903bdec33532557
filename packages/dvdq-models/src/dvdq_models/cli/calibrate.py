"""``dvdq calibrate PIPELINE OUT --prompt …``: statistics of activations, for recipes that smooth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dvdq_models.calibration import calibrate as record
from dvdq_models.calibration import check_writable
from dvdq_models.cli import options
from dvdq_models.cli.calls import call_arguments
from dvdq_models.cli.console import console, print_json, progress_bar
from dvdq_models.cli.opening import open_pipeline
from dvdq_models.placement import Offload
from dvdq_models.prompts import read_prompts
from dvdq_reference.spec.errors import DvdqError


def calibrate(
    context: typer.Context,
    pipeline: options.PipelineFolder,
    out: Annotated[Path, typer.Argument(help="The file to write (.safetensors).")],
    prompt: Annotated[list[str] | None, typer.Option(help="What a video should show; may be given again.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")] = None,
    negative_prompt: options.NegativePrompt = "",
    height: options.Height = None,
    width: options.Width = None,
    frames: options.Frames = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_2: options.Guidance2 = None,
    embedded_guidance: options.EmbeddedGuidance = None,
    text_tokens: options.TextTokens = None,
    image: options.Image = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    offload: options.OffloadTo = Offload.NONE,
    as_json: options.AsJson = False,
) -> None:
    """Make videos in full precision and record what smoothquant and vidit-q need; no other recipe does."""
    asked = [*(prompt or ()), *(read_prompts("calibrate", prompts) if prompts is not None else ())]
    if not asked:
        raise DvdqError("calibrate", expected="--prompt or --prompts", got="none")
    check_writable(out)
    pipe = open_pipeline("calibrate", pipeline, device=device, offload=offload, backend="auto")
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("videos", total=len(asked))

        def make(number: int, text: str) -> None:
            arguments = call_arguments("calibrate", pipe, text, seed + number, context.params)
            pipe(**arguments, output_type="latent")
            progress.advance(task)

        calibration = record(pipe, [(text, partial(make, number, text)) for number, text in enumerate(asked)])
    calibration.save(out)
    figures = {"layers": len(calibration.maxima), "passes": calibration.passes, "seconds": calibration.seconds}
    if as_json:
        print_json({"file": str(out), "prompts": asked, **figures})
    else:
        console.print(
            f"[bold]{out}[/bold]: {figures['layers']} layers over {len(asked)} videos, {calibration.passes} passes, in "
            f"{calibration.seconds:.1f} s",
            highlight=False,
        )
