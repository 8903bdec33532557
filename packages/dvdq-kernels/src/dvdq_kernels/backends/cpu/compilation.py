"""Kernels from LLVM IR to functions that can be called, compiled once for a processor and kept on disk."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from dvdq_kernels.backends.cpu.code import Code
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet
from dvdq_kernels.cache import cached
from dvdq_reference.spec.errors import DvdqError

Write = Callable[..., Code]
"""Writes a kernel into a module, for an instruction set and constants."""

_TRIPLES = {"aarch64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}

_CTYPES = {"ptr": ctypes.c_void_p, "i64": ctypes.c_int64, "float": ctypes.c_float}

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


def intermediate(write: Write, instructions: InstructionSet, **constants: Any) -> tuple[str, Code]:
    """The IR of one kernel, as it was written, and the kernel."""
    module = ir.Module("dvdq")
    code = write(module, instructions, **constants)
    code.finish()
    machine = machine_of(instructions)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    return str(module), code


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


@lru_cache(maxsize=None)
def kernel(write: Write, instructions: InstructionSet, **constants: Any) -> Callable[..., None]:
    """A kernel as a function of addresses and whole numbers, which runs without the interpreter's lock.

    It is compiled when it is first asked for, unless some process did so before: what it depends on names its file.
    """
    source, code = intermediate(write, instructions, **constants)
    machine = machine_of(instructions)
    key = (source, machine.triple, instructions.processor, *instructions.features, llvmlite.__version__)

    def compile_(path: Any) -> None:
        module, target = optimized(source, instructions)
        path.write_bytes(target.emit_object(module))

    data = cached(".o", key, compile_).read_bytes()
    empty = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(empty, machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    address = engine.get_function_address(code.function.name)
    if not address:
        raise DvdqError("cpu", where=code.function.name, expected="machine code that can be loaded", got="none")
    _engines.append(engine)
    return ctypes.CFUNCTYPE(None, *(_CTYPES[str(argument.type)] for argument in code.function.args))(address)
