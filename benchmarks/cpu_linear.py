"""Linears on a CPU: the ``cpu`` backend, whole and the product alone, and its peers, against ``F.linear``.

``F.linear`` in float32 is timed beside everybody, in bfloat16 where that is not a matter of minutes, and so is a loop
of dot products. Weights stay in memory, in the cache if they fit. Ours take and give float32, as the reference does.
Without ``--only`` each group has processes of its own, on one thread and on all; a peer runs if it is installed:
``PYTHON benchmarks/cpu_linear.py --only torchao`` of another environment's interpreter adds its rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median

import torch

from benchmarks.measuring import workloads
from benchmarks.measuring.case import Case, Job, Provider
from benchmarks.measuring.cpu import Row, in_turns, keep, make_row, times
from benchmarks.measuring.cpu_peers import BFLOAT16, FLOAT32, PEERS
from benchmarks.measuring.dots import dots
from benchmarks.measuring.own import linears, weight_only
from benchmarks.measuring.suite import OWN

NAME = "cpu_linear"

CPU = torch.device("cpu")
PASSES = 500
SLOW = 3.0
"""Seconds of a call from which bfloat16 is left out: without an instruction for it, it takes many times float32's."""
BUNDLED = ((256, 256), (768, 256), (256, 768), (1536, 256))
WIDE = ((1536, 1536), (8960, 1536), (1536, 8960))
SHAPES: tuple[workloads.Shape, ...] = (
    *((tokens, *layer) for layer in BUNDLED for tokens in (1, 16, 80)),
    *((tokens, *layer) for layer in WIDE for tokens in (1, 16, 80)),
    (1560, 1536, 1536),
    (1560, 8960, 1536),
    (1560, 1536, 8960),
    (4096, 1536, 1536),
    *((tokens, 3072, 3072) for tokens in (1, 16, 80, 1560)),
    *((tokens, 5120, 5120) for tokens in (1, 16, 80, 1560)),
    (80, 13824, 5120),
    (80, 5120, 13824),
    (1, 18432, 3072),
    (4096, 5120, 5120),
)
QUICK = ((80, 256, 256), (80, 1536, 1536), (1, 18432, 3072))


def measure(shape: workloads.Shape, only: str, seconds: float) -> list[Row]:
    """Checks everybody's output, times them in turns, and makes their rows."""
    case, plain = Case(shape, CPU), Case(shape, CPU, dtype=torch.float32)
    operations = 2 * shape[0] * shape[1] * shape[2]
    own = only == OWN
    asked: list[tuple[Provider, Case]] = [(FLOAT32, plain)]
    if own and _seconds(lambda: BFLOAT16.build(case).call()) < SLOW:
        asked.append((BFLOAT16, case))
    # The product that everybody else's is held against is there in every group.
    ours = (*linears("cpu"), *weight_only("cpu"))
    asked += [(p, plain) for p in ours if own or p.variant == "W4A8 block 128"]
    asked += [(p, case) for p in PEERS if p.name == only]
    jobs: dict[Provider, Job] = {}
    for provider, inputs in asked:
        try:
            job = provider.build(inputs)
            job.check(job.call())
        except Exception as error:
            # A peer may fail in any way of its own: it gets no row, and the reason is told.
            if provider.package in (None, "torch"):
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{workloads.name(shape)}: {provider.name} not measured: {reason}", flush=True)
            continue
        jobs[provider] = job
    most, at_most = dots(PASSES, loads=False)
    found = in_turns({**{f"{p.name} {p.variant}": job.call for p, job in jobs.items()}, "most": most}, seconds)
    limit = [second * operations / at_most for second in found["most"]]
    names = {p: f"{p.name} {p.variant}" for p in jobs}
    float32 = found[names[FLOAT32]]
    bfloat16 = found.get(f"{BFLOAT16.name} {BFLOAT16.variant}")
    return [
        make_row(
            "cpu_linear" if own else f"cpu_linear beside {only}",
            provider.name,
            provider.variant,
            workloads.name(shape),
            found[names[provider]],
            operations=operations,
            times_float32=times(float32, found[names[provider]]),
            times_bfloat16="" if bfloat16 is None else times(bfloat16, found[names[provider]]),
            limit_share=_share(limit, found[names[provider]]) if "W4A16" not in provider.variant else "",
            note=job.note,
            packages=[provider.package] if provider.package not in (None, "torch") else [],
        )
        for provider, job in jobs.items()
    ]


def _share(limit: Sequence[float], seconds: Sequence[float]) -> float:
    return round(median(least / own for least, own in zip(limit, seconds, strict=True)), 3)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """One group here, or each in its processes."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    groups = [OWN, *(peer.name for peer in PEERS)]
    threads = list(dict.fromkeys((1, os.cpu_count() or 1)))
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=groups, help="one group of providers, in this process")
    parser.add_argument("--threads", type=int, help=f"of torch; {' and '.join(map(str, threads))}, one after the other")
    parser.add_argument("--shapes", type=workloads.parse, help="tokens × out × in, such as 80x256x256, by commas")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(map(workloads.name, QUICK))}")
    parser.add_argument("--largest", type=float, default=2e10, help="operations of the largest shape; 2e10")
    parser.add_argument("--seconds", type=float, default=2.0, help="of rounds a shape, at least five rounds; 2")
    options = parser.parse_args(given)
    if options.only is None or options.threads is None:
        for group in groups if options.only is None else [options.only]:
            for count in threads if options.threads is None else [options.threads]:
                chosen = ["--only", group, "--threads", str(count)]
                subprocess.run([sys.executable, "-m", "benchmarks", NAME, *given, *chosen], check=group == OWN)
        return
    if options.only != OWN and find_spec(options.only) is None:
        print(f"{options.only} is not installed, and has no rows")
        return
    if hasattr(os, "sched_setaffinity"):
        # A peer may start threads of its own, as many as there are cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    for shape in options.shapes or (QUICK if options.quick else SHAPES):
        if 2 * shape[0] * shape[1] * shape[2] <= options.largest:
            rows = measure(shape, options.only, options.seconds)
            if options.only == OWN or any(row.provider == options.only for row in rows):
                keep(NAME, rows)
