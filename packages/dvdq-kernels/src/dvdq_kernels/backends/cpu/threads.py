"""One kernel on as many threads as torch uses: on torch's own, if they are OpenMP's.

To wake those costs a few microseconds, where threads of Python cost as much as a small linear, and no second set of
threads then waits for work beside torch's.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import local
from typing import NamedTuple

import torch

THREAD, THREADS, ASK = 0, 1, 2
"""Places of a block of memory that a kernel is called with: which thread it is on, of how many, and whom to ask."""

_local = local()


class _OpenMP(NamedTuple):
    """The library that torch has loaded: its start of threads, and the address of what tells a thread its number."""

    parallel: Callable[..., None]
    number: int


def scratch(size: int) -> int:
    """The address of memory of the calling thread's own: bytes that hold nothing, until it asks again."""
    memory: torch.Tensor | None = getattr(_local, "memory", None)
    if memory is None or memory.numel() < size:
        _local.memory = memory = torch.empty(size, dtype=torch.uint8)
    return memory.data_ptr()


def start(function: Callable[[int], None], address: int, block: array[int], threads: int) -> None:
    """Call ``function``, which stands at ``address``, with ``block`` on some threads; each knows its number."""
    block[THREADS] = threads
    if threads == 1:
        function(block.buffer_info()[0])
        return
    openmp = _openmp()
    if openmp is not None:
        block[THREAD], block[ASK] = -1, openmp.number
        openmp.parallel(address, block.buffer_info()[0], threads, 0)
        return
    blocks = [array("q", block) for _ in range(threads)]
    for thread, own in enumerate(blocks):
        own[THREAD] = thread
    for _ in _pool(threads).map(lambda own: function(own.buffer_info()[0]), blocks):
        pass


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dvdq-cpu")


@lru_cache
def _openmp() -> _OpenMP | None:
    """What torch brought and loaded; None where it has other threads, or keeps them elsewhere."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            parallel, number = library.GOMP_parallel, library.omp_get_thread_num
        except (OSError, AttributeError):
            continue
        parallel.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
        parallel.restype = None
        address = ctypes.cast(number, ctypes.c_void_p).value
        assert address is not None
        return _OpenMP(parallel, address)
    return None
