"""Time as a device sees it: marks between its operations, and the seconds between two marks."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Sets marks while work is handed to a device, and reads them once the device is done."""

    def mark(self) -> Any:
        """The moment at which the device has done all that it was given so far."""

    def settle(self) -> None:
        """Wait for the device."""

    def seconds(self, start: Any, end: Any) -> float:
        """From one mark to another, after :meth:`settle`."""


class HostClock:
    """The clock of a device that works while it is called: a CPU."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def settle(self) -> None:
        """Nothing is ever outstanding."""

    def seconds(self, start: float, end: float) -> float:
        """The difference."""
        return end - start


class CudaClock:
    """CUDA events in the stream that computes: marks cost it about a microsecond, and nobody waits for them."""

    def mark(self) -> torch.cuda.Event:
        """An event behind all that the stream was given."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def settle(self) -> None:
        """Wait for the whole device."""
        torch.cuda.synchronize()

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """What the device counted."""
        return float(start.elapsed_time(end)) / 1e3


def clock_of(device: torch.device) -> Clock:
    """The clock for what runs on ``device``."""
    return CudaClock() if device.type == "cuda" else HostClock()
