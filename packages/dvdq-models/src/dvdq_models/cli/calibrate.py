"""``dvdq calibrate PIPELINE OUT --prompt …``: statistics of activations, for recipes that smooth or feed back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import typer

import dvdq_kernels
from dvdq_models.calibration import calibrate as record
from dvdq_models.cli import options
from dvdq_models.cli.calls import call_arguments, check_call
from dvdq_models.cli.console import print_json, progress_bar, say, typed
from dvdq_models.cli.opening import check_opening, open_pipeline
from dvdq_models.families.family import OPTIONS
from dvdq_models.files.workspace import Workspace, check_destination, stamp
from dvdq_models.running.placement import Offload
from dvdq_models.running.prompts import read_prompts
from dvdq_models.streaming.components import walk
from dvdq_reference.spec.errors import DvdqError


def calibrate(
    context: typer.Context,
    pipeline: options.PipelineFolder,
    out: Annotated[Path, typer.Argument(help="The file to write (.safetensors).")],
    prompt: Annotated[list[str] | None, typer.Option(help="What a video should show; may be given again.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")] = None,
    moments: Annotated[
        bool, typer.Option("--moments", help="Record what --feedback needs, too: 4 in² bytes an input of linears.")
    ] = False,
    moments_memory: Annotated[
        float | None,
        typer.Option(min=0.0, help="GB that these may take where the model runs; videos are made anew for the rest."),
    ] = None,
    restart: options.Restart = False,
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
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Make videos in full precision and record what recipes that calibrate need; a run that was killed goes on."""
    with typed():
        check_opening("calibrate", pipeline, device, offload)
        asked = [*(prompt or ()), *(read_prompts("calibrate", prompts) if prompts is not None else ())]
        if not asked:
            raise DvdqError("calibrate", expected="--prompt or --prompts", got="none")
        place = check_destination("calibrate", out, file=True, replace=overwrite)
    pipe = open_pipeline(pipeline, device=device, offload=offload, backend="auto")
    with typed():
        for number, text in enumerate(asked):
            check_call("calibrate", pipe, call_arguments("calibrate", pipe, text, seed + number, context.params))

    def make(number: int, text: str) -> None:
        pipe(**call_arguments("calibrate", pipe, text, seed + number, context.params), output_type="latent")

    videos = [(text, partial(make, number, text)) for number, text in enumerate(asked)]
    at_once = None if moments_memory is None else int(moments_memory * 1e9)
    identity = _identity(pipeline, asked, context.params)
    with (
        Workspace(
            "calibrate", place, identity, restart=restart, replace=overwrite, file=f"{place.stem}.safetensors"
        ) as work,
        progress_bar(quiet=as_json) as bar,
    ):
        task = bar.add_task("videos", total=len(asked) if at_once is None else None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        calibration = record(pipe, videos, moments=moments, at_once=at_once, work=work, progress=advance)
    figures = {"layers": len(calibration.maxima), "passes": calibration.passes, "seconds": calibration.seconds}
    if as_json:
        print_json({"file": str(out), "prompts": asked, **figures})
    else:
        say(
            out,
            f": {figures['layers']} layers over {len(asked)} videos, {calibration.passes} passes, in "
            f"{calibration.seconds:.1f} s",
        )


def _identity(pipeline: Path, prompts: list[str], params: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to go on with another's work, JSON-ready; how much fits where does not count."""
    image: Path | None = params["image"]
    return {
        "pipeline": {str(file): stamp(pipeline / file) for file in walk("calibrate", pipeline)},
        "prompts": prompts,
        **{name: params[name] for name in (*OPTIONS, "seed", "device", "moments")},
        "image": None if image is None else [str(image), *stamp(image)],
        "versions": {"dvdq": dvdq_kernels.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
    }
