"""How long the first linear of a process takes on a CPU: with nothing compiled yet, with what an earlier process kept,
and once it ran.

That is rotating, quantizing and multiplying in float32; what is imported for it counts, torch does not.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence

import torch

from benchmarks.measuring.cpu import keep, make_row
from benchmarks.measuring.records import run_json
from dvdq_kernels import quantize_weight, quantized_linear
from dvdq_reference.spec.recipe import DEFAULT_BLOCK, ActivationRule, Rotation, WeightRule

NAME = "cpu_compile"

TOKENS, OUT, IN = 80, 256, 256
PROCESSES = 3


def calls() -> dict[str, float]:
    """Seconds of the first call of this process, and of one that follows."""
    rotation, rule = Rotation("full"), ActivationRule(8, DEFAULT_BLOCK)
    weight = quantize_weight(torch.randn(OUT, IN), WeightRule(4, "minmax"), rotation=rotation, backend="torch")
    x, seconds = torch.randn(TOKENS, IN), []
    for _ in range(4):
        start = time.perf_counter()
        quantized_linear(x, weight, rule, rotation=rotation, backend="cpu")
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "later": min(seconds[1:])}


def compare() -> None:
    """Processes one after the other, each pair on a folder of its own."""
    found: dict[str, list[float]] = {"nothing compiled": [], "kept on disk": [], "later calls": []}
    for _ in range(PROCESSES):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DVDQ_KERNELS_CACHE"] = folder
            for name in ("nothing compiled", "kept on disk"):
                seconds = run_json(NAME, "calls", threads=1)
                found[name].append(seconds["first"])
            found["later calls"].append(seconds["later"])
    rows = [make_row("cpu_compile", "dvdq-kernels cpu", name, f"{TOKENS}x{OUT}x{IN}", found[name]) for name in found]
    keep(NAME, rows)


def main(arguments: Sequence[str]) -> None:
    """All, or the calls of one process."""
    torch.set_num_threads(1)
    if list(arguments) == ["calls"]:
        print(json.dumps(calls()))
    else:
        compare()
