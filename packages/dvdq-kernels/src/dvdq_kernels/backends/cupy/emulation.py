"""Kernels on a CPU: compiled by the C++ compiler at hand, as a GPU would run them.

A thread of a block is a fiber, and each PTX instruction does what the manual says (``cuda/machine/emulation.cuh``).
Every launch runs its threads in another order and ends asynchronous copies early or late, as the seed has it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvdq_kernels.backends.cupy.guarded import Guarded
from dvdq_kernels.cache import cached
from dvdq_reference.spec.errors import DvdqError

_OPTIONS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-w", "-x", "c++")
_seeds = count()


def run(kernel: str, source: str, arguments: tuple[Any, ...], grid: int, threads: int, shared: int) -> None:
    """Run a kernel over tensors on the CPU.

    Args:
        kernel: the function's name.
        source: its translation unit.
        arguments: tensors, None, or NumPy scalars.
        grid: blocks.
        threads: in a block.
        shared: bytes of shared memory a block.

    Raises:
        DvdqError: it touches memory that is not its own, its threads wait for one another for ever, or a warp parts at
            an instruction of a warp.
    """
    launch = _compiled(kernel, source)
    with ExitStack() as stack:
        values = [np.atleast_1d(np.asarray(_value(argument, stack))) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        failure = launch(pointers, grid, threads, shared, next(_seeds))
    if failure:
        raise DvdqError(kernel, where="emulation", expected="a kernel that keeps to the rules", got=failure.decode())


def _value(argument: Any, stack: ExitStack) -> Any:
    if isinstance(argument, torch.Tensor):
        return np.uint64(stack.enter_context(Guarded(argument)).address)
    return np.uint64(0) if argument is None else argument


@cache
def _compiled(kernel: str, source: str) -> Any:
    compiler = os.environ.get("CXX") or "c++"
    entry = (
        f'\nextern "C" const char* emulate(void** arguments, unsigned blocks, int threads, std::size_t shared, '
        f"unsigned seed) {{\n    return emulation::launch({kernel}, arguments, blocks, threads, shared, seed);\n}}\n"
    )

    def make(path: Path) -> None:
        done = subprocess.run(
            [compiler, *_OPTIONS, "-", "-o", str(path)], input=source + entry, text=True, capture_output=True
        )
        if done.returncode:
            raise DvdqError(kernel, where=compiler, expected="a kernel that compiles", got=done.stderr[:2000])

    function = ctypes.CDLL(str(cached(".so", (source, entry, compiler, *_OPTIONS), make))).emulate
    function.restype = ctypes.c_char_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
    return function
