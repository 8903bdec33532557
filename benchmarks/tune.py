"""Finds the tiles that a backend's products run fastest with on this GPU, and adds them to its ``picks.json``.

For each class of shapes the search goes downhill from the tiles of the rule and from those found for shapes before:
neighbours of the best so far are compiled together, on all cores; those that spill registers are dropped, the others
timed. What it ends with is compared with float64. When ``--seconds`` are over, no other class is begun.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import gpu_linear, gpu_weight_only
from benchmarks.measuring import gpu, workloads
from benchmarks.measuring.case import Case
from benchmarks.measuring.own import RULES, product, weight_only
from benchmarks.measuring.records import commit, now
from benchmarks.measuring.suite import GPU_BACKENDS
from benchmarks.tiles.tuner import REPEAT_MS, Backend, Config, Subject, Task, launches_of, tune

FEW_TOKENS = (16, 256, 512)
"""Few, and those of a prompt in HunyuanVideo and in Wan."""
CROSSING_SHAPE = (12288, 3072)
CROSSING_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

Cases = Callable[[workloads.Shape, torch.device], list[Case]]


def integer_subjects(
    backend: Backend, shapes: Sequence[workloads.Shape], device: torch.device, cases: Cases = gpu_linear.SUITE.cases
) -> Iterator[Subject]:
    """The integer product of each shape in every format."""
    for shape in shapes:
        for rule in RULES.values():
            yield Subject(backend.integer, [product(case, rule, backend.name) for case in cases(shape, device)])


def weight_only_subjects(backend: Backend, device: torch.device) -> Iterator[Subject]:
    """Products of few tokens and full activations, where they have a choice of tiles."""
    if backend.weight_only is not None:
        plain, _ = weight_only(backend.name)
        for shape in gpu_weight_only.SUITE.shapes:
            yield Subject(backend.weight_only, [plain.build(case) for case in gpu_weight_only.cases(shape, device)])


def crossing(backend: Backend, device: torch.device) -> int:
    """Tokens from which unpacking the weight first is faster than decoding it in the loop, here and for more."""
    jobs = {
        tokens: product(Case((tokens, *CROSSING_SHAPE), device), RULES["W4A8 token"], backend.name)
        for tokens in CROSSING_TOKENS
    }
    never = 2 * max(CROSSING_TOKENS)
    seconds = {}
    for first in (1, never):
        with unpacking_from(backend, first):
            launches = [launches_of(backend, job.call, device)[-1] for job in jobs.values()]
            backend.compile_together(launches, backend.target_of(device))
            for tokens, job in jobs.items():
                seconds[tokens, first] = gpu.measure([job.call], REPEAT_MS).p50
    found = never
    for tokens in sorted(CROSSING_TOKENS, reverse=True):
        unpacked, decoded = seconds[tokens, 1], seconds[tokens, never]
        print(f"{tokens:6} tokens: unpacked first {unpacked * 1e6:8.1f} µs, in the loop {decoded * 1e6:8.1f} µs")
        if unpacked >= decoded:
            break
        found = tokens
    return found


def unpacking_from(backend: Backend, tokens: int) -> AbstractContextManager[object]:
    """In a ``with`` block weights are unpacked first from so many ``tokens`` on."""
    return patch.object(backend.module("linear"), "unpack_from", lambda device: tokens)


def subjects(backend: Backend, device: torch.device, quick: bool) -> Iterator[Subject]:
    """All that is tuned, what is run most first."""
    first, others = gpu_linear.SUITE.quick, () if quick else gpu_linear.SUITE.shapes
    few = [(tokens, *layer) for _, *layer in first for tokens in FEW_TOKENS]
    return chain(
        integer_subjects(backend, first, device),
        weight_only_subjects(backend, device),
        integer_subjects(backend, few, device, gpu_weight_only.cases),
        integer_subjects(backend, others, device),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Tunes class after class, and writes the picks after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=GPU_BACKENDS, required=True, help="whose tiles")
    parser.add_argument("--quick", action="store_true", help="only layers that gpu_linear.py --quick has")
    parser.add_argument("--shapes", type=workloads.parse, help="such as 118800x12288x3072, by commas")
    parser.add_argument("--seconds", type=float, default=240.0, help="after which no other class is begun; 240")
    parser.add_argument("--output", type=Path, help="where to write the picks; in place")
    options = parser.parse_args(arguments)
    device = gpu.require_gpu()
    torch.set_grad_enabled(False)
    end = time.monotonic() + options.seconds
    backend: Backend = import_module(f"benchmarks.tiles.{options.backend}").BACKEND
    path: Path = backend.module("tuning").PICKS
    picks = json.loads(path.read_text())
    threshold = crossing(backend, device)
    rows: list[dict[str, Any]] = []
    picks["runs"].append(
        {
            "device": gpu.describe(device)[0],
            "capability": backend.target_of(device),
            "date": now(),
            "commit": commit(),
            "versions": {name: import_module(name).__version__ for name in ("torch", backend.name)},
            "unpack_from": threshold,
            "rows": rows,
        }
    )
    found: dict[tuple[ModuleType, Task], Config] = {}
    chosen = (
        integer_subjects(backend, options.shapes, device)
        if options.shapes
        else subjects(backend, device, options.quick)
    )
    with unpacking_from(backend, threshold):
        for subject in chosen:
            task = subject.task(backend, device)
            if task is None or (subject.module, task.shape_class()) in found:
                continue
            if time.monotonic() > end:
                print(f"{options.seconds:.0f} s are over; not tuned: {task}", flush=True)
                break
            starts = [config for (module, _), config in found.items() if module is subject.module]
            row = tune(backend, subject, task, device, starts, end)
            rows.append(row)
            found[subject.module, task.shape_class()] = backend.module("tuning").Config(**row["config"])
            (options.output or path).write_text(json.dumps(picks, indent=1) + "\n")
            print(
                f"{task}\n    {row['config']}: {row['microseconds']} µs, the rule's {row['rule_microseconds']}",
                flush=True,
            )
