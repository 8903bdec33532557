"""What processors multiply 4-bit codes with, and which of it this one has.

All multiply four unsigned codes u (0 … 15) with four signed activation codes v (-128 … 127) a lane of 32 bits and add
the products to a partial sum; they differ in its width:

| name | registers | instruction | a partial sum |
|---|---|---|---|
| ``avx512vnni`` | 64 bytes | ``vpdpbusd`` | 32 bits |
| ``avxvnni`` | 32 bytes | ``vpdpbusd`` | 32 bits |
| ``avx2`` | 32 bytes | ``vpmaddubsw`` | 16 bits, two a lane: widened before ``2 · 15 · 2^(b-1)`` a step overflow them |
| ``neon`` | 16 bytes | ``sdot`` | 32 bits |
| ``portable`` | 16 bytes | what LLVM makes of the same arithmetic | 16 bits, two a lane |

``vpmaddubsw`` saturates on larger codes, so every operand is a nibble; codes of 8 bits are two of them.
``DVDQ_CPU_INSTRUCTIONS`` names a set to use instead of the widest.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
import torch

from dvdq_kernels.backends.cpu.code import I16, I32, Value, vector
from dvdq_kernels.registry import remembered
from dvdq_reference.spec.errors import DvdqError

VARIABLE = "DVDQ_CPU_INSTRUCTIONS"
_DTYPES = frozenset({torch.float32, torch.bfloat16})


@dataclass(frozen=True)
class InstructionSet:
    """One; this class does with arithmetic that any processor has what the others have an instruction for.

    Attributes:
        name: what ``DVDQ_CPU_INSTRUCTIONS`` calls it.
        architecture: of LLVM's triples; None is any.
        processor: LLVM's name of the least processor that has it.
        features: LLVM's names of what such a processor needs besides.
        width: bytes of a register.
        tile: tokens and registers of outputs that a product keeps sums of.
        half: whether it converts float16.
    """

    name: str
    architecture: str | None
    processor: str
    features: tuple[str, ...]
    width: int
    tile: tuple[int, int]
    half: bool = True

    @property
    def dtypes(self) -> frozenset[torch.dtype]:
        """What kernels read and write; float32 stands in for the others."""
        return _DTYPES | {torch.float16} if self.half else _DTYPES

    @property
    def lanes(self) -> int:
        """Of 32 bits, in a register."""
        return self.width // 4

    def steps(self, x_bits: int) -> int | None:
        """How many steps a partial sum takes before it has to be widened; None if any number."""
        return (2**15 - 1) // (2 * 15 << (x_bits - 1))

    def products(self, codes: Value, activations: Value) -> Value:
        """Of bytes, the sums of two that stand side by side, 16 bits each."""
        wide = codes.to(I16, signed=False) * activations.to(I16)
        return wide.shuffle(range(0, self.width, 2)) + wide.shuffle(range(1, self.width, 2))

    def step(self, partial: Value | None, codes: Value, activations: Value) -> Value:
        """``partial`` and, in each lane of 32 bits, four products of ``codes`` and ``activations``."""
        products = self.products(codes, activations)
        return products if partial is None else partial + products

    def widened(self, partial: Value) -> Value:
        """A partial sum as 32-bit integers, one a lane."""
        wide = partial.to(I32)
        return wide.shuffle(range(0, self.width // 2, 2)) + wide.shuffle(range(1, self.width // 2, 2))


class _MultiplyAdd(InstructionSet):
    """With ``vpmaddubsw`` and ``vpmaddwd``."""

    def products(self, codes: Value, activations: Value) -> Value:
        return codes.code.call("llvm.x86.avx2.pmadd.ub.sw", vector(I16, 16), codes, activations)

    def widened(self, partial: Value) -> Value:
        ones = partial.code.constant(partial.type, 1)
        return partial.code.call("llvm.x86.avx2.pmadd.wd", vector(I32, 8), partial, ones)


class _DotProduct(InstructionSet):
    """With an instruction that adds four products to 32 bits."""

    def steps(self, x_bits: int) -> int | None:
        return None

    def step(self, partial: Value | None, codes: Value, activations: Value) -> Value:
        code, sums = codes.code, vector(I32, self.lanes)
        start = code.constant(sums, 0) if partial is None else partial
        if self.architecture == "aarch64":
            return code.call("llvm.aarch64.neon.sdot.v4i32.v16i8", sums, start, codes, activations)
        name = f"llvm.x86.avx512.vpdpbusd.{8 * self.width}"
        return code.call(name, sums, start, codes.bits_as(sums), activations.bits_as(sums))

    def widened(self, partial: Value) -> Value:
        return partial


AVX512_VNNI = _DotProduct("avx512vnni", "x86_64", "x86-64-v4", ("avx512vnni",), 64, (4, 2))
AVX_VNNI = _DotProduct("avxvnni", "x86_64", "x86-64-v3", ("avxvnni",), 32, (4, 2))
AVX2 = _MultiplyAdd("avx2", "x86_64", "x86-64-v3", (), 32, (3, 2))
NEON = _DotProduct("neon", "aarch64", "generic", ("neon", "dotprod"), 16, (4, 4))
PORTABLE = InstructionSet("portable", None, "", (), 16, (4, 2), half=False)

ALL = (AVX512_VNNI, AVX_VNNI, AVX2, NEON, PORTABLE)
"""The widest first."""

_V3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_LEVELS = {
    "x86-64-v3": _V3,
    "x86-64-v4": (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "generic": (),
    "": (),
}


def is_architecture_here(architecture: str | None) -> bool:
    """Whether the processor at hand is of an architecture, whatever its system calls that."""
    name = llvm.get_process_triple().partition("-")[0]
    return architecture in (None, "aarch64" if name == "arm64" else name)


@cache
def runs_here(instructions: InstructionSet) -> bool:
    """Whether the processor at hand has them."""
    if not is_architecture_here(instructions.architecture):
        return False
    if sys.platform == "darwin" and instructions.architecture == "aarch64":
        # LLVM tells no features of Apple's processors, which all have these.
        return True
    has = llvm.get_host_cpu_features()
    return all(has.get(name) for name in (*_LEVELS[instructions.processor], *instructions.features))


@remembered
def at_hand() -> InstructionSet:
    """The set that kernels are compiled for: that of ``DVDQ_CPU_INSTRUCTIONS``, else the widest that is here.

    Raises:
        DvdqError: the variable names none, or one that this processor does not have.
    """
    name = os.environ.get(VARIABLE) or None
    here = [instructions for instructions in ALL if runs_here(instructions)]
    for instructions in here:
        if name in (None, instructions.name):
            return instructions
    raise DvdqError("cpu", where=VARIABLE, expected=" or ".join(i.name for i in here), got=name)
