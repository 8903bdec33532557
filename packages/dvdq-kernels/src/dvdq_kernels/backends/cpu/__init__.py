"""Loops compiled for the processor at hand: vectors of codes with its dot products (:mod:`.code`, by llvmlite), and
branching searches for grids (:mod:`.loops`, by numba).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module

from dvdq_kernels import refusals
from dvdq_kernels.backend import FAST_GRIDS, Backend, Preference, Step
from dvdq_kernels.call import Place


def _describe(place: Place, steps: Sequence[Step]) -> list[str]:
    from dvdq_kernels.backends.cpu.instruction_sets import at_hand

    return [f"{step.operator.__name__} with {at_hand().name}" for step in steps]


BACKEND = Backend(
    "cpu",
    partial(import_module, f"{__name__}.operators"),
    lambda: refusals.absence("numba", "pip install 'dvdq-kernels[cpu]'"),
    device_types=lambda: frozenset({"cpu"}),
    grids=FAST_GRIDS | {"bgr-symmetric"},
    preference=lambda call: Preference(10),
    describe=_describe,
)
