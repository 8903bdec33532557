"""Why a backend cannot run on this machine: cheap questions, which import nothing."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from importlib.util import find_spec

import torch

from dvdq_kernels.call import capability_of

EMULATE = "DVDQ_CUPY_EMULATE"
"""Names a compute capability, e.g. 89: the kernels of ``cupy`` then run on a CPU as such a GPU would run them."""


def is_installed(module: str) -> bool:
    """Whether ``module`` can be imported, without importing it."""
    return sys.modules[module] is not None if module in sys.modules else _is_found(module)


@cache
def _is_found(module: str) -> bool:
    """Kept, since looking through the file system takes as long as a small linear."""
    return find_spec(module) is not None


def numba_refusal() -> str | None:
    """Why ``numba`` cannot run here, or None if it can."""
    return None if is_installed("numba") else "numba is not installed: pip install 'dvdq-kernels[numba]'"


def triton_interprets() -> bool:
    """Whether Triton's kernels run on a CPU, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def triton_absence() -> str | None:
    """Why ``triton`` cannot compile, or None if it can, for a GPU that need not be here."""
    return None if is_installed("triton") else "triton is not installed"


def triton_refusal() -> str | None:
    """Why ``triton`` cannot run here, or None if it can."""
    reason = triton_absence()
    if reason is not None or triton_interprets():
        return reason
    return _gpu_refusal("TRITON_INTERPRET=1 runs the kernels on a CPU, slowly, to check them")


def is_emulated() -> bool:
    """Whether the kernels of ``cupy`` are to run on a CPU."""
    return bool(os.environ.get(EMULATE))


def emulated_capability() -> int | None:
    """The compute capability to emulate, e.g. 89; None if none from 80 on is named."""
    value = os.environ.get(EMULATE, "")
    return int(value) if value.isdecimal() and int(value) >= 80 else None


def cupy_absence() -> str | None:
    """Why ``cupy`` cannot compile, or None if it can, for a GPU that need not be here."""
    return None if is_installed("cupy") else "cupy is not installed: pip install 'dvdq-kernels[cupy]'"


def cupy_refusal() -> str | None:
    """Why ``cupy`` cannot run here, on a GPU or emulated, or None if it can."""
    if not is_emulated():
        return cupy_absence() or _gpu_refusal(f"{EMULATE}=89 runs the kernels on a CPU as 8.9 would, to check them")
    if emulated_capability() is None:
        return f"{EMULATE} names no compute capability from 80 on, such as 89: {os.environ[EMULATE]}"
    compiler = os.environ.get("CXX") or "c++"
    return None if shutil.which(compiler) else f"{EMULATE} needs a C++ compiler, $CXX or c++: no {compiler} is found"


def capability_refusal(capability: int) -> str | None:
    """Why a GPU of this compute capability has no kernels, or None if it has."""
    major, minor = divmod(capability, 10)
    return None if capability >= 80 else f"needs compute capability 8.0, this device has {major}.{minor}"


def _gpu_refusal(otherwise: str) -> str | None:
    capability = capability_of(torch.device("cuda")) if torch.cuda.is_available() else None
    return f"no CUDA device ({otherwise})" if capability is None else capability_refusal(capability)
