"""Compiled loops for a CPU, where many small operations of PyTorch would cost more than their arithmetic."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from dvdq_kernels import refusals
from dvdq_kernels.backend import FAST_GRIDS, Backend, Preference

BACKEND = Backend(
    "numba",
    partial(import_module, f"{__name__}.operators"),
    lambda: refusals.absence("numba", "pip install 'dvdq-kernels[numba]'"),
    device_types=lambda: frozenset({"cpu"}),
    offers=frozenset({"quantize_weight"}),
    grids=FAST_GRIDS,
    preference=lambda call: Preference(10),
)
