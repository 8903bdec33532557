"""Timing on a CPU: calls that take turns, and the row that says what was timed.

Other machines share the processor, so that a time alone is worth little: all that is compared runs in one process, each
once a round, in an order drawn anew, and a ratio is the median of those of the rounds.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch

from benchmarks.measuring.records import append, commit, now, processor, versions
from dvdq_kernels.backends.cpu.instruction_sets import at_hand

TURN = 1e-2
"""Seconds of a turn at the least: what is shorter is called several times."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 101

Seconds = list[float]
"""Of a call, in each round."""


@dataclass(frozen=True)
class Row:
    """One line of a CSV file.

    ``times_float32`` and ``times_bfloat16`` are ``F.linear``'s time over this one's; ``limit_share`` is the time that
    the operations take in a loop of dot products and nothing else, over this one's.
    """

    operation: str
    provider: str
    variant: str
    shape: str
    device: str
    instructions: str
    threads: int
    p20_s: float
    p50_s: float
    p80_s: float
    times_float32: float | str
    times_bfloat16: float | str
    gops: float | str
    gb_per_s: float | str
    limit_share: float | str
    rounds: int
    note: str
    versions: str
    commit: str
    date: str


def in_turns(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Seconds]:
    """Each call's seconds in every round, of as many rounds as fit into ``seconds``, but ``LEAST_ROUNDS``."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, math.ceil(TURN / _elapsed(call, 1)))
    found: dict[str, Seconds] = {name: [] for name in calls}
    order, end = list(calls), time.monotonic() + seconds
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.monotonic() > end:
            break
        random.shuffle(order)
        for name in order:
            found[name].append(_elapsed(calls[name], repeats[name]))
    return found


def _elapsed(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def times(reference: Seconds, seconds: Seconds) -> float:
    """How many times as fast as a reference."""
    return _digits(median(other / own for other, own in zip(reference, seconds, strict=True)))


def make_row(
    operation: str,
    provider: str,
    variant: str,
    shape: str,
    seconds: Seconds,
    *,
    operations: float = 0,
    moved: float = 0,
    times_float32: float | str = "",
    times_bfloat16: float | str = "",
    limit_share: float | str = "",
    note: str = "",
    packages: Sequence[str] = (),
) -> Row:
    """What a CSV file says of a call; ``operations`` and ``moved``, in bytes, are those of one."""
    p20, p50, p80 = (quantiles(seconds, n=10, method="inclusive")[i] for i in (1, 4, 7))
    return Row(
        operation=operation,
        provider=provider,
        variant=variant,
        shape=shape,
        device=processor(),
        instructions=at_hand().name,
        threads=torch.get_num_threads(),
        p20_s=_digits(p20),
        p50_s=_digits(p50),
        p80_s=_digits(p80),
        times_float32=times_float32,
        times_bfloat16=times_bfloat16,
        gops=_digits(operations / p50 / 1e9) if operations else "",
        gb_per_s=_digits(moved / p50 / 1e9) if moved else "",
        limit_share=limit_share,
        rounds=len(seconds),
        note=note,
        versions=versions("llvmlite", "numba", *packages),
        commit=commit(),
        date=now(),
    )


def keep(benchmark: str, rows: Sequence[Row]) -> None:
    """Appends rows to the file of ``benchmark`` on this processor, and prints them."""
    append(benchmark, processor(), rows)
    for row in rows:
        ratios = "".join(
            f" {number:7.2f} x {name}"
            for name, number in (("float32", row.times_float32), ("bfloat16", row.times_bfloat16))
            if number != ""
        )
        share = f" {float(row.limit_share):6.0%} of the limit" if row.limit_share != "" else ""
        rate = f" {row.gops} GOP/s" if row.gops != "" else f" {row.gb_per_s} GB/s" if row.gb_per_s != "" else ""
        print(
            f"{row.shape:>16} {row.threads}t {f'{row.provider} {row.variant}'.strip():42}"
            f" {1e3 * row.p50_s:10.4f} ms{rate}{ratios}{share} {row.note}",
            flush=True,
        )


def _digits(number: float) -> float:
    """Four significant digits."""
    return float(f"{number:.4g}")
