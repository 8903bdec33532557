"""Machine code for any GPU, on a machine that may have none: NVRTC compiles it, and CuPy loads it where it runs."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvdq_kernels.cache import cached
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_kernels.sass import instructions, tensor_loop
from dvdq_reference.spec.errors import DvdqError

if TYPE_CHECKING:
    from dvdq_kernels.backends.cupy.launch import Launch

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
        expected = "NVRTC, which pip install 'dvdq-kernels[cupy]' brings"
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


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one launch.

    Attributes:
        kernel: its name.
        target: compute capability, e.g. 90.
        registers: of each thread.
        stack: bytes of local memory a thread, where registers spill to.
        shared: bytes of shared memory a block, what the launch asks for included.
        instructions: how often each instruction occurs, with its modifiers, e.g. ``IMMA.16832.S8.S8``.
        loop: instructions of the loop that keeps the tensor cores busy, and what a warp multiplies and adds in one turn
            of it (:func:`~dvdq_kernels.sass.tensor_loop`).
    """

    kernel: str
    target: int
    registers: int
    stack: int
    shared: int
    instructions: Counter[str]
    loop: tuple[int, int]

    def count(self, pattern: str) -> int:
        """How many instructions match a regular expression from their beginning."""
        return sum(times for name, times in self.instructions.items() if re.match(pattern, name))


def compile_launch(launch: Launch, target: int) -> Compiled:
    """``launch`` for compute capability ``target``, as it would be loaded there; read with Triton's disassembler."""
    from triton import knobs

    path = cubin(translation_unit(launch.file, launch.constants), target)
    usage = _run(knobs.nvidia.cuobjdump.path, "-res-usage", str(path))
    found = re.search(rf"Function {launch.kernel}:\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    assert found is not None, usage
    registers, stack, static = map(int, found.groups())
    code = _run(knobs.nvidia.nvdisasm.path, "-c", str(path))
    return Compiled(
        launch.kernel, target, registers, stack, static + launch.shared, Counter(instructions(code)), tensor_loop(code)
    )


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
