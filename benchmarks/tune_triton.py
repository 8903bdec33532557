"""Finds the tiles that Triton's products run fastest with on this GPU, and adds them to ``picks.json``.

For each class of shapes the search goes downhill from the tiles of the rule and from those found for shapes before:
neighbours of the best so far are compiled together, on all cores; those that spill registers are dropped, the others
timed. What it ends with is compared with float64. When ``--seconds`` are over, no other class is begun.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import _gpu
import _shapes
import gpu_linear
import gpu_weight_only
import torch
import triton
from _case import Case
from _ours import RULES, product, weight_only
from _record import commit, now
from _tiles import REPEAT_MS, Subject, compile_together, launches_of, tune

from dvdq_kernels.backends.triton import linear
from dvdq_kernels.backends.triton import weight_only as few_tokens
from dvdq_kernels.backends.triton.launch import target_of
from dvdq_kernels.backends.triton.tuning import Config, Task

PICKS = Path(__file__).parents[1] / "packages/dvdq-kernels/src/dvdq_kernels/backends/triton/picks.json"
CROSSING_SHAPE = (12288, 3072)
CROSSING_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048)


def integer_subjects(shapes: Sequence[_shapes.Shape], device: torch.device) -> Iterator[Subject]:
    """The integer product of each shape, with one scale a token and with blocks."""
    rules = {rule.block: rule for rule in RULES.values()}.values()
    for shape in shapes:
        for rule in rules:
            yield Subject(linear, [product(Case(shape, device), rule, "triton")])


def weight_only_subjects(device: torch.device) -> Iterator[Subject]:
    """Products of few tokens."""
    plain, _ = weight_only("triton")
    for shape in gpu_weight_only.SUITE.shapes:
        yield Subject(few_tokens, [plain.build(case) for case in gpu_weight_only.cases(shape, device)])


def crossing(device: torch.device) -> int:
    """Tokens from which unpacking the weight first is faster than decoding it in the loop, here and for more."""
    jobs = {
        tokens: product(Case((tokens, *CROSSING_SHAPE), device), RULES["W4A8 token"], "triton")
        for tokens in CROSSING_TOKENS
    }
    seconds = {}
    for first in (1, 2 * max(CROSSING_TOKENS)):
        with patch.object(linear, "unpack_from", lambda device, first=first: first):
            compile_together([launches_of(job.call, device)[-1] for job in jobs.values()])
            for tokens, job in jobs.items():
                seconds[tokens, first == 1] = _gpu.measure([job.call], REPEAT_MS).p50
    found = 2 * max(CROSSING_TOKENS)
    for tokens in sorted(CROSSING_TOKENS, reverse=True):
        unpacked, decoded = seconds[tokens, True], seconds[tokens, False]
        print(f"{tokens:6} tokens: unpacked first {unpacked * 1e6:8.1f} µs, in the loop {decoded * 1e6:8.1f} µs")
        if unpacked >= decoded:
            break
        found = tokens
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Tunes class after class, and writes the picks after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="only the shapes that gpu_linear.py --quick has")
    parser.add_argument("--shapes", type=_shapes.parse, help="such as 118800x12288x3072, by commas")
    parser.add_argument("--seconds", type=float, default=240.0, help="after which no other class is begun; 240")
    parser.add_argument("--output", type=Path, default=PICKS, help="where to write the picks; in place")
    options = parser.parse_args(arguments)
    device = _gpu.require_gpu()
    torch.set_grad_enabled(False)
    end = time.monotonic() + options.seconds
    first, others = gpu_linear.SUITE.quick, () if options.quick else gpu_linear.SUITE.shapes
    subjects = (
        integer_subjects(options.shapes, device)
        if options.shapes
        else chain(integer_subjects(first, device), weight_only_subjects(device), integer_subjects(others, device))
    )
    picks = json.loads(PICKS.read_text())
    run = {
        "device": _gpu.describe(device)[0],
        "capability": target_of(device),
        "date": now(),
        "commit": commit(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "unpack_from": crossing(device),
        "rows": [],
    }
    picks["runs"].append(run)
    found: dict[Task, Config] = {}
    for subject in subjects:
        task = subject.task(device)
        if task.shape_class() in found:
            continue
        if time.monotonic() > end:
            print(f"{options.seconds:.0f} s are over; not tuned: {task}", flush=True)
            break
        starts = [config for other, config in found.items() if other.kernel == task.kernel]
        row = tune(subject, task, device, list(dict.fromkeys(starts)), end)
        run["rows"].append(row)
        found[task.shape_class()] = Config(**row["config"])
        options.output.write_text(json.dumps(picks, indent=1) + "\n")
        print(
            f"{task}\n    {row['config']}: {row['microseconds']} µs, the rule's {row['rule_microseconds']}", flush=True
        )


if __name__ == "__main__":
    main()
