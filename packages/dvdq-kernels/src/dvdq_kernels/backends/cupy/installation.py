"""Whether what is installed can start a kernel under this machine's driver: answered without importing CuPy."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib import metadata

LEAST_CUPY = (14, 0)
_NEWEST_CUDA = 13
_WHEELS = {"cupy-cuda13x": 13, "cupy-cuda12x": 12, "cupy": None}
"""CuPy's distributions and the CUDA that each is for; that of conda, or of a source, is for the one there."""
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def install() -> str:
    """The command that brings what is for the driver here, or for the newest where there is none."""
    driver = driver_cuda()
    old = driver is not None and driver[0] < _NEWEST_CUDA
    return f"pip install 'dvdq-kernels[{'cupy-cuda12' if old else 'cupy'}]'"


@cache
def refusal() -> str | None:
    """Why CuPy, which is installed, cannot compile and start kernels here, and what to install; None if it can."""
    driver, how = driver_cuda(), install()
    name, version = next(((n, v) for n in _WHEELS if (v := _version(n)) is not None), ("cupy", None))
    if version is not None and version < LEAST_CUPY:
        return f"needs CuPy {_dotted(LEAST_CUPY)} or newer, here is {name} {_dotted(version)}: {how}"
    built_for = _WHEELS[name]
    if built_for is not None and driver is not None and driver[0] < built_for:
        return (
            f"{name} needs a driver of CUDA {built_for}, here is one of {_dotted(driver)}: pip uninstall {name}; {how}"
        )
    if _version("cuda-bindings") is None:
        return f"cuda-bindings is not installed: {how}"
    return _nvrtc_refusal(how)


def _nvrtc_refusal(how: str) -> str | None:
    """CuPy looks for NVRTC in this very way, when it first compiles."""
    from cuda import pathfinder

    try:
        pathfinder.load_nvidia_dynamic_lib("nvrtc")
    except pathfinder.DynamicLibNotFoundError:
        return f"NVRTC is not installed: {how}"
    return None


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver here runs, such as (12, 8); None without a driver."""
    try:
        library = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    found = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(found)):
        return None
    return found.value // 1000, found.value % 1000 // 10


def _version(distribution: str) -> tuple[int, int] | None:
    try:
        major, minor = metadata.version(distribution).split(".")[:2]
        return int(major), int(minor)
    except metadata.PackageNotFoundError:
        return None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
