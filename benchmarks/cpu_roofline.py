"""What this processor does at most: dot products with operands in registers, with those that a product loads, a copy.

On one thread and on all, for activation codes of 8 and of 4 bits, which differ where partial sums have 16 bits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from benchmarks.measuring.cpu import Row, Seconds, in_turns, keep, make_row
from benchmarks.measuring.dots import dots

NAME = "cpu_roofline"

PASSES = 2000
COPIED = 2**28
SECONDS = 5.0


def measure() -> list[Row]:
    """One row a probe, all of them in turns, on the threads that torch uses."""
    calls, operations = {}, {}
    for bits in (8, 4):
        for loads in (False, True):
            name = f"A{bits}, operands {'loaded' if loads else 'in registers'}"
            calls[name], operations[name] = dots(PASSES, loads=loads, x_bits=bits)
    source = torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.zeros_like(source)
    found: dict[str, Seconds] = in_turns({**calls, "copy": lambda: target.copy_(source)}, SECONDS)
    rows = [
        make_row("roofline", "dot products", name, "", found[name], operations=operations[name]) for name in operations
    ]
    return [*rows, make_row("roofline", "copy", "", str(COPIED), found["copy"], moved=2 * COPIED)]


def main(arguments: Sequence[str]) -> None:
    """On one thread, and on all."""
    for threads in dict.fromkeys((1, os.cpu_count() or 1)):
        torch.set_num_threads(threads)
        keep(NAME, measure())
