"""Work split among as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dvdq-cpu")


def split(work: Callable[[int, int], None], count: int, together: int, worth: int) -> None:
    """Calls ``work(first, last)`` on ranges that make up ``range(count)``.

    Args:
        work: what a thread does; results must not depend on where ranges end.
        count: of items.
        together: items that are not to be parted.
        worth: items that are worth a thread of their own.
    """
    units = -(-count // together)
    threads = min(torch.get_num_threads(), units, max(1, count // worth))
    if threads == 1:
        work(0, count)
        return
    ends = [min(units * i // threads * together, count) for i in range(threads + 1)]
    waiting = [_pool(threads).submit(work, ends[i], ends[i + 1]) for i in range(1, threads)]
    work(ends[0], ends[1])
    for future in waiting:
        future.result()
