"""Work split among as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import local

import torch

_local = local()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dvdq-cpu")


def scratch(size: int) -> int:
    """The address of memory of the calling thread's own: bytes that hold nothing, until it asks again."""
    memory: torch.Tensor | None = getattr(_local, "memory", None)
    if memory is None or memory.numel() < size:
        _local.memory = memory = torch.empty(size, dtype=torch.uint8)
    return memory.data_ptr()


def split(work: Callable[[int, int], object], count: int, together: int, worth: int) -> None:
    """Calls ``work(first, last)`` on ranges that make up ``range(count)``.

    Args:
        work: what a thread does; results must not depend on where ranges end.
        count: of items.
        together: items that are not to be parted.
        worth: items that are worth a thread of their own.
    """
    threads = min(torch.get_num_threads(), count // worth)
    if threads < 2:
        if count:
            work(0, count)
        return
    units = -(-count // together)
    ends = [min(units * i // threads * together, count) for i in range(threads + 1)]
    waiting = [_pool(threads).submit(work, ends[i], ends[i + 1]) for i in range(1, threads)]
    work(ends[0], ends[1])
    for future in waiting:
        future.result()
