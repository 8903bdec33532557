"""What the tuner has to know of Triton's products."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton

from benchmarks.tiles.tuner import Backend
from dvdq_kernels.backends.triton import linear, weight_only
from dvdq_kernels.backends.triton.launch import Launch, options


def compile_together(launches: Sequence[Launch], target: int) -> list[Any]:
    """The compiled kernel of each, as a launch will find it; Triton compiles for the GPU at hand, which has ``target``.

    None for one that does not compile.
    """
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        triton.AsyncCompileMode(pool, ignore_errors=True),
    ):
        found = [
            launch.kernel.warmup(
                grid=launch.grid, **launch.arguments, **launch.constants, **options(launch.warps, launch.stages)
            )
            for launch in launches
        ]
    return [kernel.kernel if isinstance(kernel, triton.FutureKernel) else kernel for kernel in found]


BACKEND = Backend(
    name="triton",
    integer=linear,
    weight_only=weight_only,
    compile_together=compile_together,
    # Known once the kernel is loaded.
    spills=lambda kernel: kernel.n_spills > 0,
    refusal=triton.OutOfResources,
)
