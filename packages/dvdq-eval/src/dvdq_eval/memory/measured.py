"""What a pass really took: the most that the device's allocator had given out at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dvdq_eval.device import peak_bytes


def measured_bytes(device: torch.device, call: Callable[[], object]) -> int:
    """Bytes that ``call`` takes at most beside what was taken before it, after one call that warms up.

    A GPU's allocator keeps count. A CPU's tells the profiler of each allocation; libraries that bring their own
    allocator, such as a BLAS, are not seen.
    """
    call()
    if device.type != "cpu":
        peak = peak_bytes(device, call)
        assert peak is not None
        return peak
    # The profiler's library tells standard error of each start and stop, and of GPUs that are not there.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    live = most = 0
    for change in _changes(profiler):
        live += change
        most = max(most, live)
    return most


def _changes(profiler: profile) -> Iterator[int]:
    """Bytes allocated, or freed if negative, in their order."""
    recorded: Any = profiler.profiler
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        yield event.nbytes()
