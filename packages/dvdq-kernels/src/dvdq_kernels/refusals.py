"""Why a backend cannot run on this machine: cheap questions, which import nothing."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec

import torch

from dvdq_kernels.call import capability_of


def is_installed(module: str) -> bool:
    """Whether ``module`` can be imported, without importing it."""
    return sys.modules[module] is not None if module in sys.modules else _is_found(module)


@cache
def _is_found(module: str) -> bool:
    """Kept, since looking through the file system takes as long as a small linear."""
    return find_spec(module) is not None


def absence(module: str, how: str = "") -> str | None:
    """Why a library cannot be used, with ``how`` to get it, or None if it can."""
    return None if is_installed(module) else f"{module} is not installed" + (f": {how}" if how else "")


def gpu_refusal(otherwise: str) -> str | None:
    """Why the GPU here has no kernels, or None if it has; ``otherwise`` says what can be done where there is none."""
    capability = capability_of(torch.device("cuda")) if torch.cuda.is_available() else None
    return f"no CUDA device ({otherwise})" if capability is None else capability_refusal(capability)


def capability_refusal(capability: int) -> str | None:
    """Why a GPU of this compute capability has no kernels, or None if it has."""
    major, minor = divmod(capability, 10)
    return None if capability >= 80 else f"needs compute capability 8.0, this device has {major}.{minor}"
