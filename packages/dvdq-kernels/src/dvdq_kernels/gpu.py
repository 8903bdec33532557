"""The GPU that kernels start on, or one that need not be here, for which they are only written down.

Inside :func:`recording` nothing runs: a backend's operators, called on meta tensors, leave the launches that a GPU of
the given compute capability would get, which the backend's ``compilation`` can compile without that GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from dvdq_kernels.backend import Step
from dvdq_kernels.call import Place, capability_of
from dvdq_reference.spec.errors import DvdqError

_SHARED_MEMORY = {80: 166912, 87: 166912, 90: 232448, 100: 232448, 103: 232448}
_LEAST_SHARED_MEMORY = 101376
"""That of the others: 8.6, 8.9, 12.0."""

_MULTIPROCESSORS = 132


@dataclass
class Recording:
    """What :func:`recording` gathers, for a GPU of compute capability ``target``, 90 for 9.0.

    Each of the ``launches`` is a backend's own and has a ``description``.
    """

    target: int
    launches: list[Any] = field(default_factory=list)


_recording: ContextVar[Recording | None] = ContextVar("dvdq_recording", default=None)


@contextmanager
def recording(target: int) -> Iterator[Recording]:
    """In a ``with`` block, launches are written down and not run."""
    record = Recording(target)
    token = _recording.set(record)
    try:
        yield record
    finally:
        _recording.reset(token)


def recorded() -> Recording | None:
    """The recording that launches belong to, if they are not to run."""
    return _recording.get()


def launches(place: Place, steps: Sequence[Step], otherwise: Callable[[], int]) -> list[str]:
    """What ``steps`` would start at ``place``, recorded and not run; ``otherwise`` gives the capability of no GPU."""
    with recording(otherwise() if place.capability is None else place.capability) as record:
        for operator, arguments in steps:
            operator(*arguments)
    return [launched.description for launched in record.launches]


def target_of(device: torch.device, otherwise: int) -> int:
    """The compute capability to choose kernels and tiles for, e.g. 90; ``otherwise`` where no GPU is at hand."""
    record = recorded()
    if record is not None:
        return record.target
    return capability_of(device) or otherwise


def is_capturing(device: torch.device) -> bool:
    """Whether what is started on ``device`` by this thread is captured in a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def refuse_in_capture(what: str, device: torch.device) -> None:
    """A :class:`DvdqError` if a CUDA graph is captured: it cannot hold what is loaded or copied at a first call."""
    if is_capturing(device):
        raise DvdqError(
            what,
            where=f"a CUDA graph on {device}",
            expected="the same call once, on this device, before the capture",
            got="its first call",
        )


def has_int4(capability: int | None) -> bool:
    """Whether a GPU has INT4 tensor cores, which do twice what INT8 ones do: compute capabilities 8.0 to 8.9."""
    return capability is not None and 80 <= capability <= 89


def shared_memory(target: int) -> int:
    """Bytes of shared memory that a block can have at a compute capability (CUDA C++ Programming Guide)."""
    return _SHARED_MEMORY.get(target, _LEAST_SHARED_MEMORY)


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors ``device`` has; 132, an H100's, where none is at hand."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return _MULTIPROCESSORS
