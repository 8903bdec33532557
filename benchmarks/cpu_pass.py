"""A whole pass on a CPU, attention, norms and Python included: full precision in float32 and bfloat16, W4A8 and W4A4.

Of both bundled models, and of four blocks of Wan 2.1 1.3B with random weights at 17 x 256 x 448, 2,240 tokens. Ours
take and give float32. All of one model take turns in one process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.measuring.cpu import Row, in_turns, keep, make_row, times
from dvdq_eval.methods import parse_methods
from dvdq_eval.passes.running import Pass, passes_of, variants_of
from dvdq_eval.passes.subject import PUBLISHED, Subject, open_subject

NAME = "cpu_pass"

METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A4")
PUBLISHED_MODEL, BLOCKS, VIDEO = "wan2.1-1.3b", 4, "17x256x448"
CUT = f"{PUBLISHED_MODEL}-{BLOCKS}-blocks"
MODELS = ("wan", "hunyuan-video", CUT)
FLOAT32, BFLOAT16 = "float32", "bfloat16"
SECONDS = 20.0


def open_model(name: str, folder: Path) -> Subject:
    """A bundled model, or some blocks of a published one, whose configuration is written to ``folder``."""
    if name != CUT:
        return open_subject(NAME, name, None)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(PUBLISHED[PUBLISHED_MODEL].read_text()) | {"num_layers": BLOCKS}))
    return open_subject(NAME, str(path), VIDEO)


def measure(name: str, subject: Subject, seconds: float) -> list[Row]:
    """One row a provider, all of them in turns, on the threads that torch uses."""
    cpu = torch.device("cpu")
    full, *quantized = variants_of(NAME, parse_methods(NAME, METHODS))
    (plain,), (half,) = passes_of(subject, full, cpu), passes_of(subject, full, cpu)
    half.transformer.to(torch.bfloat16)
    half = replace(half, inputs=subject.inputs(half.transformer, torch.bfloat16, cpu))
    ours = {run.title: run for variant in quantized for run in passes_of(subject, variant, cpu)}
    passes = {FLOAT32: plain, BFLOAT16: half, **ours}
    found = in_turns({provider: partial(_call, run) for provider, run in passes.items()}, seconds)
    return [
        make_row(
            NAME,
            provider,
            "",
            f"{name}, {subject.tokens} tokens",
            own,
            times_float32=times(found[FLOAT32], own),
            times_bfloat16=times(found[BFLOAT16], own),
            packages=["diffusers"],
        )
        for provider, own in found.items()
    ]


def _call(one: Pass) -> None:
    one.prepare()
    one()


def main(arguments: Sequence[str]) -> None:
    """Each model, on one thread and on all."""
    for threads in dict.fromkeys((1, os.cpu_count() or 1)):
        torch.set_num_threads(threads)
        for name in arguments or MODELS:
            with TemporaryDirectory() as folder:
                keep(NAME, measure(name, open_model(name, Path(folder)), SECONDS))
