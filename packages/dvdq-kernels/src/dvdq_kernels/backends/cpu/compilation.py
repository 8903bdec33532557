"""Kernels from LLVM IR to functions that can be called, compiled once for a processor and kept on disk."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from struct import pack
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from dvdq_kernels.backends.cpu.code import I64, POINTER, Code
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet
from dvdq_kernels.cache import cached

Write = Callable[..., Code]
"""Writes a kernel into a module, for an instruction set and constants."""

_TRIPLES = {"aarch64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}

ENTRY = "run"

_engines: list[Any] = []
"""What keeps loaded machine code in memory, for as long as the process."""


@lru_cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def machine_of(instructions: InstructionSet) -> llvm.TargetMachine:
    """The processor that an instruction set asks for, at the least; this one's kind where it can run here."""
    _initialize()
    here = llvm.get_process_triple()
    architecture = instructions.architecture
    triple = here if architecture is None or here.startswith(architecture) else _TRIPLES[architecture]
    features = ",".join(f"+{name}" for name in instructions.features)
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=instructions.processor, features=features, opt=3, reloc="pic", codemodel="small"
    )


def intermediate(write: Write, instructions: InstructionSet, **constants: Any) -> str:
    """The IR of one kernel, as it was written, and of ``run``, which calls it with what lies in a block of memory.

    A call from Python with one address takes a third of the time of one with twenty arguments.
    """
    module = ir.Module("dvdq")
    code = write(module, instructions, **constants)
    code.finish()
    code.function.linkage = "internal"
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block())
    places = (builder.gep(entry.args[0], [I64(i)], source_etype=I64) for i in range(len(code.function.args)))
    builder.call(
        code.function,
        [builder.load(place, typ=a.type) for a, place in zip(code.function.args, places, strict=True)],
    )
    builder.ret_void()
    machine = machine_of(instructions)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    return str(module)


def optimized(source: str, instructions: InstructionSet) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """``source`` through LLVM's optimizer, ready for ``emit_object`` or ``emit_assembly``."""
    machine = machine_of(instructions)
    module = llvm.parse_assembly(source)
    module.verify()
    # Loops are vectors already.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


@cache
def kernel(write: Write, instructions: InstructionSet, **constants: Any) -> Callable[..., None]:
    """A kernel as a function of addresses, whole numbers and :func:`float_bits`, which runs without the interpreter's
    lock.

    It is compiled when it is first asked for, unless some process did so before: what it depends on names its file.
    """
    source = intermediate(write, instructions, **constants)
    machine = machine_of(instructions)
    key = (source, machine.triple, instructions.processor, *instructions.features, llvmlite.__version__)

    def compile_(path: Path) -> None:
        module, target = optimized(source, instructions)
        path.write_bytes(target.emit_object(module))

    data = cached(".o", key, compile_).read_bytes()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _engines.append(engine)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address(ENTRY))

    def run(*numbers: int) -> None:
        block = array("q", numbers)
        function(block.buffer_info()[0])

    return run


def float_bits(number: float) -> int:
    """A number as a kernel takes a float32."""
    return int.from_bytes(pack("<f", number), "little")
