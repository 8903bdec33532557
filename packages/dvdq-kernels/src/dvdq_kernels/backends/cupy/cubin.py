"""Machine code for any GPU, on a machine that may have none: NVRTC compiles it, and CuPy loads it where it runs."""

from __future__ import annotations

from pathlib import Path

from dvdq_kernels.backends.cupy.installation import install
from dvdq_kernels.cache import cached
from dvdq_reference.spec.errors import DvdqError

OPTIONS = ("-std=c++17", "-default-device", "--fmad=false", "-lineinfo")
"""Generic lambdas are device functions to NVRTC 13.0 only if all functions are.

Fused multiply-adds are asked for by name, so that emulation and a GPU round alike.
"""

_ARCHITECTURES = {90: "90a", 100: "100a", 103: "103a"}
"""Those whose own instructions, such as ``wgmma``, no later GPU has."""


def architecture(target: int) -> str:
    """What NVRTC calls compute capability ``target``, e.g. ``sm_90a``."""
    return f"sm_{_ARCHITECTURES.get(target, target)}"


def cubin(source: str, target: int) -> Path:
    """The file of machine code for ``source``, compiled once for each GPU and version of NVRTC.

    Raises:
        DvdqError: it does not compile, or NVRTC is not installed.
    """
    from cupy_backends.cuda.libs import nvrtc

    try:
        version = str(nvrtc.getVersion())
    except RuntimeError as error:
        expected = f"NVRTC, which {install()} brings"
        raise DvdqError("cubin", where="a CUDA kernel", expected=expected, got=str(error)) from error
    options = (f"-arch={architecture(target)}", *OPTIONS)

    def make(path: Path) -> None:
        program = nvrtc.createProgram(source, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise DvdqError("cubin", where=options[0], expected="a kernel that compiles", got=log[:2000]) from error
        else:
            # CuPy leaves out the last byte, as if it ended a string.
            path.write_bytes(nvrtc.getCUBIN(program) + b"\0")
        finally:
            nvrtc.destroyProgram(program)

    return cached(".cubin", (source, *options, version), make)
