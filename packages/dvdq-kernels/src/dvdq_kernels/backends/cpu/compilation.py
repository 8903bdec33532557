"""Kernels from LLVM IR to functions that can be called, compiled once for a processor and kept on disk."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from struct import pack
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import torch
from llvmlite import ir

from dvdq_kernels.backends.cpu.code import I32, I64, Code, Variable
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet, is_architecture_here
from dvdq_kernels.backends.cpu.threads import scratch, start
from dvdq_kernels.cache import cached

Write = Callable[..., Code]
"""Writes a kernel into a module, for an instruction set and constants."""

_TRIPLES = {"aarch64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}

ENTRY = "run"
_CODE_MODEL = "large"
"""Code and its constants may be loaded further apart than 32-bit offsets reach."""
_HEADER = 8
"""Numbers of a block before those that are the kernel's own."""

_engines: list[Any] = []
"""What keeps loaded machine code in memory, for as long as the process."""


@lru_cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def machine_of(instructions: InstructionSet) -> llvm.TargetMachine:
    """The processor that an instruction set asks for, at the least; this one's kind where it can run here."""
    _initialize()
    architecture = instructions.architecture
    if architecture is None or is_architecture_here(architecture):
        triple = llvm.get_process_triple()
    else:
        triple = _TRIPLES[architecture]
    features = ",".join(f"+{name}" for name in instructions.features)
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=instructions.processor, features=features, opt=3, reloc="static", codemodel=_CODE_MODEL
    )


def intermediate(write: Write, instructions: InstructionSet, **constants: Any) -> str:
    """The IR of one kernel, as it was written, and of the function that threads call with a block of memory.

    One address costs a call from Python a third of the time of twenty arguments. That function takes from the block
    which thread it is on, of how many, and gives the kernel its share of a range, ``first`` and ``last``, its part of
    ``scratch``, and all else as it stands there.
    """
    module = ir.Module("dvdq")
    kernel = write(module, instructions, **constants)
    kernel.finish()
    kernel.function.linkage = "internal"
    entry = Code(module, ENTRY, {"block": I64}, ())
    block = entry.array("block")
    thread, threads, ask_thread, ask_threads, count, together, scratch, memory = map(block.load, range(_HEADER))
    own, of = Variable(entry, thread), Variable(entry, threads)
    with entry.when(thread < 0):
        own.value = entry.call_at(ask_thread, I32).to(I64)
        of.value = entry.call_at(ask_threads, I32).to(I64)
    units = (count + together - 1) // together
    first = units * own.value // of.value * together
    last = entry.smaller(units * (own.value + 1) // of.value * together, count)
    given = {"first": first, "last": last, "scratch": entry.pointer(scratch + own.value * memory)}
    places = iter(range(_HEADER, _HEADER + len(kernel.parameters)))
    arguments = [
        given[name] if name in given else block.at(next(places)).of(type_).load()
        for name, type_ in kernel.parameters.items()
    ]
    with entry.when(first < last):
        entry.builder.call(kernel.function, [argument.ir for argument in arguments])
    entry.finish()
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


def _object(source: str, instructions: InstructionSet, triple: str) -> bytes:
    """Machine code, from disk if it is there whole: LLVM ends the process over a file that is not."""

    def compiled() -> bytes:
        module, target = optimized(source, instructions)
        return bytes(target.emit_object(module))

    def keep(path: Path) -> None:
        data = compiled()
        path.write_bytes(sha256(data).digest() + data)

    key = (source, triple, _CODE_MODEL, instructions.processor, *instructions.features, llvmlite.__version__)
    try:
        for _ in range(2):
            path = cached(".o", key, keep)
            kept = path.read_bytes()
            digest, data = kept[: sha256().digest_size], kept[sha256().digest_size :]
            if sha256(data).digest() == digest:
                return data
            path.unlink(missing_ok=True)
    except OSError:
        pass
    # Nothing can be kept: every process compiles anew.
    return compiled()


class Kernel:
    """Compiled, to be called with addresses, whole numbers and :func:`float_bits`, without the interpreter's lock."""

    def __init__(self, address: int) -> None:
        self._address = address
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def __call__(self, numbers: Iterable[int], count: int, together: int, worth: int, memory: int = 0) -> None:
        """On ranges that make up ``range(count)``; results do not depend on where these end.

        Args:
            numbers: all parameters but ``first``, ``last`` and ``scratch``.
            count: of items.
            together: items that are not to be parted.
            worth: items that are worth a thread of their own.
            memory: bytes of scratch that a thread needs.
        """
        threads = max(1, min(torch.get_num_threads(), count // worth))
        block = array("q", (0, 1, 0, 0, count, together, scratch(threads * memory), memory, *numbers))
        start(self._function, self._address, block, threads)


@cache
def kernel(write: Write, instructions: InstructionSet, **constants: Any) -> Kernel:
    """A kernel, compiled when it is first asked for, unless some process did so: what it depends on names its file."""
    machine = machine_of(instructions)
    data = _object(intermediate(write, instructions, **constants), instructions, machine.triple)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _engines.append(engine)
    return Kernel(engine.get_function_address(ENTRY))


def float_bits(number: float) -> int:
    """A number as a kernel takes a float32."""
    return int.from_bytes(pack("<f", number), "little")
