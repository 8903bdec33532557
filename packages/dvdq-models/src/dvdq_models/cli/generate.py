"""``dvdq generate PIPELINE --prompt …``: a video, and the trace of bit widths beside it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from dvdq_models.bit_schedule import average_bits
from dvdq_models.bit_switching import trace
from dvdq_models.checkpoint import is_quantized, load_pipeline
from dvdq_models.cli.console import console, print_json, progress_bar
from dvdq_models.cli.options import AsJson, Backend
from dvdq_models.video import to_bytes, write_mp4


def generate(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline folder, quantized or not.")],
    prompt: Annotated[str, typer.Option(help="What the video should show.")],
    out: Annotated[Path, typer.Option(help="The video to write; its trace goes beside it as .json.")] = Path("out.mp4"),
    negative_prompt: Annotated[str, typer.Option(help="What it should not show.")] = "",
    height: Annotated[int, typer.Option(min=16)] = 480,
    width: Annotated[int, typer.Option(min=16)] = 832,
    frames: Annotated[int, typer.Option(min=1)] = 81,
    steps: Annotated[int, typer.Option(min=1)] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 turns it off.")] = 5.0,
    seed: Annotated[int, typer.Option()] = 0,
    fps: Annotated[int, typer.Option(min=1)] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Generate one video with a (quantized) pipeline."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    quantized = is_quantized(pipeline)
    pipe = load_pipeline(pipeline, backend=backend, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    started = time.monotonic()
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("denoising", total=steps)

        def advance(_pipe: Any, step: int, _time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            progress.update(task, completed=step + 1)
            return kwargs

        video = pipe(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=min(512, pipe.tokenizer.model_max_length),
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=advance,
            output_type="np",
        ).frames[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(out, to_bytes(video), fps=fps)
    decisions = trace(pipe.transformer) if quantized else ()
    record = {
        "video": str(out),
        "prompt": prompt,
        "seed": seed,
        "steps": steps,
        "seconds": time.monotonic() - started,
        "average_bits": average_bits(decisions) if decisions else 16.0,
        "trace": [dataclasses.asdict(decision) for decision in decisions],
    }
    out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    if as_json:
        print_json(record)
    else:
        console.print(
            f"[bold]{out}[/bold]: {steps} steps in {record['seconds']:.1f} s at {record['average_bits']:.2f} "
            "activation bits on average",
            highlight=False,
        )
