"""What the compiler makes of a launch, on a machine that may have no GPU: registers, memory, instructions."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dvdq_kernels.backends.cupy.cubin import cubin
from dvdq_kernels.backends.cupy.launch import Launch
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_kernels.sass import instructions, tensor_loop


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


def machine_code(launch: Launch, target: int) -> Path:
    """The file in which a launch at compute capability ``target`` finds its machine code."""
    return cubin(translation_unit(launch.file, launch.constants), target)


def compile_launch(launch: Launch, target: int) -> Compiled:
    """``launch`` for compute capability ``target``, as it would be loaded there; read with Triton's disassembler."""
    from triton import knobs

    path = machine_code(launch, target)
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
