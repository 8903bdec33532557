"""What the tuner has to know of the products in CUDA C++ that have a choice of tiles: those by ``mma``."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from cupy_backends.cuda.api.driver import CUDADriverError

from benchmarks.tiles.tuner import Backend
from dvdq_kernels.backends.cupy import mma
from dvdq_kernels.backends.cupy.compilation import Compiled, compile_launch
from dvdq_kernels.backends.cupy.launch import Launch
from dvdq_reference.spec.errors import DvdqError


def compile_together(launches: Sequence[Launch], target: int) -> list[Compiled | None]:
    """The machine code of each, which a launch will find on disk; None for one that does not compile, with a warning.

    NVRTC does not promise that its calls may be made by several threads at once, so each core has a process.
    """
    context = multiprocessing.get_context("spawn")
    # A compiler needs none of the tensors.
    alone = [replace(launch, arguments=()) for launch in launches]
    with ProcessPoolExecutor(mp_context=context) as pool:
        found = list(pool.map(partial(_compiled, target=target), alone))
    for launch, compiled in zip(launches, found, strict=True):
        if isinstance(compiled, DvdqError):
            logging.getLogger(__name__).warning("%s does not compile: %s", launch.description, compiled)
    return [None if isinstance(compiled, DvdqError) else compiled for compiled in found]


def _compiled(launch: Launch, target: int) -> Compiled | DvdqError:
    try:
        return compile_launch(launch, target)
    except DvdqError as error:
        return error


BACKEND = Backend(
    name="cupy",
    integer=mma,
    weight_only=None,
    compile_together=compile_together,
    spills=lambda compiled: compiled.stack > 0,
    refusal=CUDADriverError,
)
