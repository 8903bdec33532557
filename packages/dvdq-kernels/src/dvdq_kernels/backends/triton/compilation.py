"""Machine code of a recorded launch for any GPU, on a machine that has none.

Triton's package carries the assembler and the disassembler, so that registers, spills, shared memory and the
tensor-core instructions of a kernel can be read before it ever runs.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dvdq_kernels.backends.triton.launch import Launch, compiling_for, options
from dvdq_kernels.gpu import shared_memory
from dvdq_kernels.sass import instructions
from dvdq_reference.spec.errors import DvdqError

_POINTERS = {
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
_ALIGNED = [["tt.divisibility", 16]]
_LISTS_CONSTANTS = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 7)
"""Whether a launch has an empty list for what is constant: its cache knows a kernel by its lists."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one launch.

    Attributes:
        name: the kernel's.
        target: compute capability, e.g. 90.
        registers: of each thread.
        spilled: bytes of local memory that a thread's registers spill to, its stack.
        local: share of the instructions that load from it or store to it.
        shared: bytes of shared memory that a program takes.
        ptx: the virtual machine code.
        sass: the machine code.
    """

    name: str
    target: int
    registers: int
    spilled: int
    local: float
    shared: int
    ptx: str
    sass: str

    @property
    def tensor_core_instructions(self) -> frozenset[str]:
        """Those of the virtual machine code without their shapes: ``wgmma.s32.s8.s8``, ``mma.f32.bf16.bf16.f32``, …"""
        found = re.findall(r"\b(wgmma\.mma_async|mma\.sync|tcgen05\.mma)([.\w:]*)", self.ptx)
        types = re.compile(r"[.:](?:[su]8|s32|f32|f16|bf16|tf32|f64|kind::\w+)(?=[.:]|$)")
        return frozenset(
            name.replace(".mma_async", "").replace(".sync", "") + "".join(types.findall(rest)) for name, rest in found
        )


def machine_code(launch: Launch, target: int) -> Any:
    """What Triton compiles of a launch at compute capability ``target``, in its cache, where such a launch finds it."""
    signature, constants, attributes = _specialise(launch)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    with compiling_for(target):
        return triton.compile(
            source, target=GPUTarget("cuda", target, 32), options=options(launch.warps, launch.stages)
        )


def compile_launch(launch: Launch, target: int) -> Compiled:
    """``launch`` for compute capability ``target``, specialised as Triton specialises it when it runs.

    Raises:
        DvdqError: it takes more shared memory than a program can have there.
    """
    compiled = machine_code(launch, target)
    name, shared = launch.kernel.__name__, compiled.metadata.shared
    if shared > shared_memory(target):
        raise DvdqError(
            "compile_launch",
            where=f"{name} for {target}",
            expected=f"at most {shared_memory(target)} bytes of shared memory",
            got=shared,
        )
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage = _run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(binary))
        sass = _run(triton.knobs.nvidia.nvdisasm.path, "-c", str(binary))
    registers, stack = (int(n) for n in re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())  # type: ignore[union-attr]
    names = instructions(sass)
    local = sum(name.partition(".")[0] in ("LDL", "STL") for name in names) / len(names)
    return Compiled(name, target, registers, stack, local, shared, compiled.asm["ptx"], sass)


def _specialise(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Types, constants, and which pointers and sizes are multiples of 16: fresh tensors of torch are."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for position, name in enumerate(launch.kernel.arg_names):
        value = launch.constants[name] if name in launch.constants else launch.arguments[name]
        varies = name in launch.arguments and value is not None and not (type(value) is int and value == 1)
        if varies or _LISTS_CONSTANTS:
            attributes[(position,)] = []
        if name in launch.constants or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = _POINTERS[value.dtype]
            # A view that starts inside its tensor need not be aligned.
            if value.storage_offset() * value.element_size() % 16 == 0:
                attributes[(position,)] = _ALIGNED
        elif isinstance(value, bool):
            signature[name] = "u1"
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(position,)] = _ALIGNED
        else:
            signature[name] = "fp32"
    return signature, constants, attributes


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
