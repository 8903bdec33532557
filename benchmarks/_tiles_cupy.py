"""What the tuner has to know of the products in CUDA C++ that have a choice of tiles: those by ``mma``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from _tiles import Backend
from cupy_backends.cuda.api.driver import CUDADriverError

from dvdq_kernels.backends.cupy import mma
from dvdq_kernels.backends.cupy.compilation import Compiled, compile_launch
from dvdq_kernels.backends.cupy.launch import Launch
from dvdq_reference.spec.errors import DvdqError


def compile_together(launches: Sequence[Launch], target: int) -> list[Compiled | None]:
    """The machine code of each, which a launch will find on disk; None for one that does not compile."""

    def compiled(launch: Launch) -> Compiled | None:
        try:
            return compile_launch(launch, target)
        except DvdqError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, launches))


BACKEND = Backend(
    name="cupy",
    integer=mma,
    weight_only=None,
    compile_together=compile_together,
    spills=lambda compiled: compiled.stack > 0,
    refusal=CUDADriverError,
)
