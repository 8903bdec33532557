"""``dvdq generate PIPELINE --prompt …``: a video, and the trace of bit widths beside it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
import uuid
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dvdq_models.cli import options
from dvdq_models.cli.calls import call_arguments, check_call, default_of, video_size
from dvdq_models.cli.console import print_json, progress_bar, say, typed
from dvdq_models.cli.opening import check_opening, open_pipeline
from dvdq_models.families.pipelines import PipelineFolder, transformers_of
from dvdq_models.files.atomic import new_file, write_text
from dvdq_models.files.destinations import check_new_file, check_space
from dvdq_models.files.text import one_line
from dvdq_models.running.attention import attention_of, set_attention
from dvdq_models.running.placement import FinishOn, Offload
from dvdq_models.running.video import VIDEO_ENDINGS, Frames, to_bytes, write_mp4
from dvdq_models.switching.hook import hooks_of, set_ends
from dvdq_models.switching.schedule import average_bits
from dvdq_models.teacache import enable_teacache, teacache_trace
from dvdq_reference.spec.errors import DvdqError


def generate(
    context: typer.Context,
    pipeline: options.PipelineFolder,
    prompt: Annotated[str, typer.Option(help="What the video should show.")],
    out: Annotated[Path, typer.Option(help="The video to write; its trace goes beside it as .json.")] = Path("out.mp4"),
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
    fps: Annotated[int | None, typer.Option(min=1, help="Frames a second; default: the pipeline's own.")] = None,
    device: options.Device = "cpu",
    offload: options.OffloadTo = Offload.NONE,
    finish_on: options.FinishPlace = FinishOn.DEVICE,
    backend: options.Backend = "auto",
    attention: Annotated[
        str | None, typer.Option(help="An attention backend of diffusers: native, sage, sage_varlen, flash, ….")
    ] = None,
    teacache: Annotated[
        float | None, typer.Option(help="Threshold below which TeaCache skips steps, e.g. 0.1; 0 skips none.")
    ] = None,
    teacache_coefficients: Annotated[
        str | None, typer.Option(help="Whose coefficients, e.g. wan2.1-t2v-14b, where the architecture leaves it open.")
    ] = None,
    first_high: options.FirstHigh = None,
    last_high: options.LastHigh = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Generate one video with a (quantized) pipeline."""
    with typed():
        check_opening("generate", pipeline, device, offload, finish_on)
        folder = PipelineFolder.open("generate", pipeline)
        check_new_file("generate", out, VIDEO_ENDINGS, replace=overwrite)
        check_new_file("generate", out.with_suffix(".json"), (".json",), replace=overwrite)
        if teacache is None and teacache_coefficients is not None:
            raise DvdqError("generate", where="--teacache-coefficients", expected="--teacache with it", got="none")
    pipe = open_pipeline(pipeline, device=device, offload=offload, backend=backend, finish_on=finish_on)
    transformers = list(transformers_of(pipe).values())
    with typed():
        if first_high is not None or last_high is not None:
            set_ends(pipe, first_high=first_high, last_high=last_high)
        arguments = call_arguments("generate", pipe, prompt, seed, context.params)
        check_call("generate", pipe, arguments)
        check_space("generate", out.absolute(), 3 * prod(video_size(pipe, arguments)))  # more than it ever takes
        if attention is not None:
            for transformer in transformers:
                set_attention(transformer, attention)
        if teacache is not None:
            for transformer in transformers:
                enable_teacache(transformer, teacache, coefficients=teacache_coefficients, pipeline=pipe)
    out.parent.mkdir(parents=True, exist_ok=True)
    steps = arguments.get("num_inference_steps", default_of(pipe, "num_inference_steps"))
    started = time.monotonic()
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("denoising", total=steps)

        def advance(_pipe: Any, step: int, _time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            progress.update(task, completed=step + 1, total=_pipe.num_timesteps)
            return kwargs

        video = to_bytes(pipe(**arguments, callback_on_step_end=advance, output_type="np").frames[0])
    _write(out, video, fps or folder.fps)
    decisions = next(iter(hooks_of(pipe).values())).trace if folder.quantized else []
    record = {
        "video": str(out),
        "prompt": prompt,
        "seed": seed,
        "steps": steps,
        "attention": attention_of(transformers[0]),
        "seconds": time.monotonic() - started,
        "average_bits": average_bits(decisions) if decisions else 16.0,
        "trace": [dataclasses.asdict(decision) for decision in decisions],
    }
    if teacache is not None:
        cached = [decision for transformer in transformers for decision in teacache_trace(transformer)]
        record["teacache"] = [dataclasses.asdict(decision) for decision in cached]
    write_text(out.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    if as_json:
        print_json(record)
    else:
        say(
            out,
            f": {steps} steps in {record['seconds']:.1f} s at {record['average_bits']:.2f} activation bits on average",
        )


def _write(out: Path, video: Frames, fps: int) -> None:
    """The video under its name, at once; if that fails, its frames beside it, where the error says."""
    try:
        with new_file(out) as part:
            write_mp4(part, video, fps=fps)
    # Whatever it is, the video is worth more than its kind.
    except Exception as error:
        kept = _keep(out, video)
        got = f"{one_line(error)}; its frames are in {kept}, as numpy.load reads them"
        raise DvdqError("generate", where=str(out), expected="a video that can be written", got=got) from error


def _keep(out: Path, video: Frames) -> Path:
    for folder in (out.parent, Path(tempfile.gettempdir())):
        kept = folder / f"{out.stem}.{uuid.uuid4().hex[:8]}.npy"
        try:
            np.save(kept, video)
        except OSError:
            continue
        return kept
    raise DvdqError("generate", where=str(out), expected="room for the frames somewhere", got="none")
