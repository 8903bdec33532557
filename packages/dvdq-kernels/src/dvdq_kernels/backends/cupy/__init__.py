"""CUDA C++ kernels for NVIDIA GPUs, compiled by NVRTC for the one at hand: INT4 tensor cores, and Hopper's own."""

from __future__ import annotations

import os
import shutil
from functools import partial
from importlib import import_module

from dvdq_kernels import refusals
from dvdq_kernels.backend import FAST_GRIDS, Backend, Preference
from dvdq_kernels.backends.cupy import installation
from dvdq_kernels.backends.cupy.target import EMULATE, assumed, emulated_capability, is_emulated
from dvdq_kernels.call import Call, Place
from dvdq_kernels.gpu import has_int4, launches


def _absence() -> str | None:
    return refusals.absence("cupy", installation.install())


def _refusal() -> str | None:
    if not is_emulated():
        otherwise = f"{EMULATE}=89 runs the kernels on a CPU as 8.9 would, to check them"
        return _absence() or refusals.gpu_refusal(otherwise) or installation.refusal()
    if emulated_capability() is None:
        return f"{EMULATE} names no compute capability from 80 on, such as 89: {os.environ[EMULATE]}"
    compiler = os.environ.get("CXX") or "c++"
    return None if shutil.which(compiler) else f"{EMULATE} needs a C++ compiler, $CXX or c++: no {compiler} is found"


def _packs(place: Place, bits: int) -> bool:
    """Whether codes of ``bits`` bits meet INT4 tensor cores, emulated ones too."""
    return bits <= 4 and has_int4(emulated_capability() if place.capability is None else place.capability)


def _preference(call: Call) -> Preference:
    narrow = call.x_bits is not None and max(call.x_bits, call.bits or 0) <= 4 and call.packed is not False
    if call.operation == "quantized_linear" and narrow and has_int4(call.place.capability):
        return Preference(40, "since cupy alone reaches INT4 tensor cores")
    return Preference(20)


BACKEND = Backend(
    "cupy",
    partial(import_module, f"{__name__}.operators"),
    _refusal,
    _absence,
    device_types=lambda: frozenset({"cpu" if is_emulated() else "cuda"}),
    grids=FAST_GRIDS,
    takes_packed=True,
    packs=_packs,
    preference=_preference,
    for_checks=is_emulated,
    describe=partial(launches, otherwise=assumed),
)
