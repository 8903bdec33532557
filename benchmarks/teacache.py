"""TeaCache on a bundled pipeline: how many passes it skips on unseen prompts, and what that changes.

``python -m benchmarks teacache wan --bits full W4A4 --thresholds 0.05 0.1 0.2``. Videos are compared with those of the
same precision without skipping, frame by frame before any codec.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring.records import append, commit, now, processor, versions
from dvdq_eval.quality import psnr
from dvdq_models import Recipe, quantize
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.moving_shapes.clips import split_scenes
from dvdq_models.switching.hook import follow
from dvdq_models.teacache.enable import disable_teacache, enable_teacache, teacache_trace

NAME = "teacache"


@dataclass(frozen=True)
class Row:
    """One line of a CSV file: ``reused`` is the share of passes whose blocks were skipped, PSNR is in dB."""

    operation: str
    device: str
    pipeline: str
    bits: str
    coefficients: str
    threshold: float
    videos: int
    steps: int
    reused: float
    psnr_mean: float
    psnr_min: float
    versions: str
    commit: str
    date: str


def generate(
    pipeline: Any, prompts: list[str], generation: Mapping[str, Any], *, cached: bool = False
) -> tuple[list[NDArray[np.float32]], float]:
    """A video ``[frames, height, width, 3]`` a prompt, and the share of passes that were skipped."""
    videos, decisions = [], []
    for seed, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed)
        video = pipeline(prompt=prompt, generator=generator, output_type="np", **generation).frames[0]
        videos.append(np.asarray(video))
        decisions += teacache_trace(pipeline.transformer) if cached else ()
    return videos, statistics.mean(d.reused for d in decisions) if cached else 0.0


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, generate, compare and append."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", nargs="?", choices=BUNDLED, default="wan")
    parser.add_argument("--bits", nargs="+", default=["full", "W4A4", "W4A6"])
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.05, 0.1, 0.2])
    parser.add_argument("--prompts", type=int, default=16)
    args = parser.parse_args(arguments)
    bundled = BUNDLED[args.pipeline]
    _, unseen = split_scenes()
    prompts = [scene.prompt for scene in unseen[: args.prompts]]
    name, rows = f"moving-shapes-{args.pipeline}", []
    for bits in args.bits:
        pipeline = bundled.load()
        if bits != "full":
            quantize(pipeline.transformer, Recipe.named("dvd-quant", bits))
            follow(pipeline)
        reference, _ = generate(pipeline, prompts, bundled.generation)
        for threshold in args.thresholds:
            enable_teacache(pipeline.transformer, threshold, coefficients=name, pipeline=pipeline)
            found, reused = generate(pipeline, prompts, bundled.generation, cached=True)
            disable_teacache(pipeline.transformer)
            decibels = [psnr(video, wanted) for video, wanted in zip(found, reference, strict=True)]
            row = Row(
                "teacache",
                processor(),
                args.pipeline,
                bits,
                name,
                threshold,
                len(prompts),
                bundled.generation["num_inference_steps"],
                round(reused, 4),
                round(statistics.mean(decibels), 2),
                round(min(decibels), 2),
                versions("diffusers"),
                commit(),
                now(),
            )
            print(row, flush=True)
            rows.append(row)
    append(NAME, processor(), rows)
