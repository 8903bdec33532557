"""Triton kernels for NVIDIA GPUs: one file an operator, one way to start a kernel, tiles chosen in one place."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from dvdq_kernels import refusals
from dvdq_kernels.backend import FAST_GRIDS, Backend, Preference
from dvdq_kernels.backends.triton.target import INTERPRETED, interprets
from dvdq_kernels.gpu import launches


def _absence() -> str | None:
    return refusals.absence("triton")


def _refusal() -> str | None:
    reason = _absence()
    if reason is not None or interprets():
        return reason
    return refusals.gpu_refusal("TRITON_INTERPRET=1 runs the kernels on a CPU, slowly, to check them")


BACKEND = Backend(
    "triton",
    partial(import_module, f"{__name__}.operators"),
    _refusal,
    _absence,
    device_types=lambda: frozenset({"cpu" if interprets() else "cuda"}),
    grids=FAST_GRIDS,
    preference=lambda call: Preference(30),
    describe=partial(launches, otherwise=lambda: INTERPRETED),
)
