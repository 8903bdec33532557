"""What a device is called, what full precision is there, and its memory: what a call takes, what nobody holds."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from dvdq_eval.provenance import provenance
from dvdq_reference.spec.errors import DvdqError


def open_device(operation: str, name: str) -> torch.device:
    """``cpu`` or ``cuda``, if it is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DvdqError(operation, where="--device", expected="a CUDA device", got="none here")
    return torch.device(name)


def dtype_on(device: torch.device) -> torch.dtype:
    """Of full precision: float32 on a CPU, bfloat16 on a GPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def provenance_on(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit; ``device`` is the name of the processor or the GPU."""
    origin = provenance()
    return origin | {"device": origin["processor"] if device.type == "cpu" else torch.cuda.get_device_name(device)}


def peak_bytes(device: torch.device, call: Callable[[], object]) -> int | None:
    """Memory of a GPU that ``call`` takes at most beside what was taken before it; None on a CPU, which does not count.

    What other models hold there is not part of it.
    """
    if device.type == "cpu":
        call()
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def let_go(device: torch.device) -> None:
    """Give back the memory of models that nobody holds; diffusers' hooks are cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
