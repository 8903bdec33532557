"""NEON's machine code under QEMU: each kernel gives the bits that the same tiling gives here."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
if shutil.which("aarch64-linux-gnu-gcc") is None or shutil.which("qemu-aarch64") is None:
    pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64", allow_module_level=True)

from dvdq_kernels.backends.cpu.activation import write_rotate, write_rotate_quantize
from dvdq_kernels.backends.cpu.code import F32
from dvdq_kernels.backends.cpu.compilation import Write, float_bits, intermediate, kernel, optimized
from dvdq_kernels.backends.cpu.instruction_sets import NEON, PORTABLE
from dvdq_kernels.backends.cpu.product import write_product
from dvdq_kernels.backends.cpu.weight_only import write_dequantize, write_few_tokens
from dvdq_kernels.rotation import paley

SCRATCH = 2**16
"""Bytes, which are enough for all of these."""
MAIN = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
void run(int64_t *block);
int main(void) {
    int64_t count, head[64][2], block[64];
    if (fread(&count, 8, 1, stdin) != 1 || fread(head, 16, count, stdin) != count) return 1;
    for (int i = 0; i < count; i++) {
        block[i] = head[i][1];
        if (!head[i][0]) continue;
        void *memory = malloc(head[i][1]);
        if (fread(memory, 1, head[i][1], stdin) != head[i][1]) return 2;
        block[i] = (int64_t)memory;
    }
    run(block);
    for (int i = 0; i < count; i++)
        if (head[i][0] && fwrite((void *)block[i], 1, head[i][1], stdout) != head[i][1]) return 3;
    return 0;
}
"""
OUTPUTS = 37
Argument = np.ndarray[Any, Any] | int


def emulated(
    folder: Path, write: Write, constants: dict[str, Any], arguments: list[Argument], count: int
) -> list[bytes]:
    """What a kernel for NEON leaves in its arrays."""
    module, machine = optimized(intermediate(write, NEON, **constants), NEON)
    (folder / "kernel.o").write_bytes(machine.emit_object(module))
    (folder / "main.c").write_text(MAIN)
    files = [str(folder / name) for name in ("main.c", "kernel.o")]
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-o", str(folder / "main"), *files, "-lm"], check=True)
    arrays = [argument for argument in arguments if not isinstance(argument, int)]
    scratch = np.zeros(SCRATCH, np.uint8)
    # The first thread of one, which need not ask; then its range and its scratch.
    header: list[Argument] = [0, 1, 0, 0, count, 1, scratch, 0]
    arrays.insert(0, scratch)
    heads = [(0, a) if isinstance(a, int) else (1, a.nbytes) for a in (*header, *arguments)]
    given = struct.pack("<q", len(heads)) + b"".join(struct.pack("<qq", *head) for head in heads)
    given += b"".join(array.tobytes() for array in arrays)
    command = ["qemu-aarch64", "-cpu", "max", str(folder / "main")]
    left = subprocess.run(command, input=given, check=True, capture_output=True).stdout
    ends = np.cumsum([array.nbytes for array in arrays]).tolist()
    return [left[end - array.nbytes : end] for array, end in zip(arrays, ends, strict=True)][1:]


def here(write: Write, constants: dict[str, Any], arguments: list[Argument], count: int) -> list[bytes]:
    """The same of the same registers and tiles, in arithmetic that this processor has."""
    tiling = replace(PORTABLE, width=NEON.width, tile=NEON.tile)
    if write is write_product:
        constants = {**constants, "limit": tiling.steps(8)}
    arrays = [argument if isinstance(argument, int) else argument.copy() for argument in arguments]
    numbers = [a if isinstance(a, int) else a.ctypes.data for a in arrays]
    kernel(write, tiling, **constants)(numbers, count, 1, count, SCRATCH)
    return [array.tobytes() for array in arrays if not isinstance(array, int)]


def product(stored: int, grouped: bool) -> tuple[dict[str, Any], list[Argument]]:
    rng = np.random.default_rng(stored)
    tokens, outputs, channels, blocks, groups = 7, OUTPUTS, 80, 5, 2 if grouped else 1
    parts = 10 if grouped else 5
    codes = rng.integers(-128, 128, (tokens, channels), dtype=np.int8)
    x_scale, token_sum, bias = (rng.standard_normal(n, np.float32) for n in ((tokens, blocks), tokens, outputs))
    weight = rng.integers(0, 256, (outputs, channels * stored // 8), dtype=np.uint8)
    scale = rng.standard_normal((outputs, groups), np.float32)
    zero = rng.integers(-9, 9, (outputs, groups), dtype=np.int16)
    out = np.zeros((tokens, outputs), np.float32)
    constants = {"limit": None, "stored": stored, "grouped": grouped, "output": F32, "bias": F32}
    sizes = (tokens, outputs, channels, channels // parts, blocks, groups, 4, 2 ** (stored - 1))
    return constants, [codes, x_scale, token_sum, weight, scale, zero, bias, out, *sizes]


def rotation(core: int) -> list[Argument]:
    """x, what it is multiplied by, and H_m, of 8 m channels."""
    rng, size = np.random.default_rng(core), 8 * core
    factors = rng.choice([-1, 1], size) / np.float32(size) ** 0.5
    return [rng.standard_normal((3, size), np.float32), factors.astype(np.float32), paley(core).astype(np.float32)]


def cases() -> dict[str, tuple[Write, dict[str, Any], list[Argument], list[int]]]:
    """A kernel, its constants, arguments, and which of its arrays it writes."""
    made = {}
    for stored, grouped in ((4, True), (4, False), (8, True), (8, False)):
        name = f"product of {stored} bits{', grouped' if grouped else ''}"
        made[name] = (write_product, *product(stored, grouped), [7])
    for core in (1, 12):
        inputs, size = rotation(core), 8 * core
        constants = {"element": F32, "size": size, "core": core}
        out = np.zeros((3, size), np.float32)
        arguments = [*inputs, out, size, size]
        made[f"rotate, m = {core}"] = (write_rotate, {**constants, "work": F32}, arguments, [3])
        outs = np.zeros((3, size), np.int8), np.zeros((3, 2), np.float32), np.zeros(3, np.float32)
        signed = core > 1
        arguments = [*inputs, *outs, size, size, size // 2, -8, 7, float_bits(-8.0 if signed else 7.0)]
        made[f"rotate_quantize, m = {core}"] = (
            write_rotate_quantize,
            {**constants, "signed": signed},
            arguments,
            [3, 4, 5],
        )
    for stored in (4, 8):
        rng = np.random.default_rng(stored)
        weight = rng.integers(0, 256, (9, 128 * stored // 8), dtype=np.uint8)
        grid = rng.standard_normal((9, 2), np.float32), rng.integers(-9, 9, (9, 2), dtype=np.int16)
        decoded = [weight, *grid, np.zeros((9, 128), np.float32), 128, 2, 2 ** (stored - 1)]
        made[f"dequantize, {stored} bits"] = (write_dequantize, {"stored": stored}, decoded, [3])
        x, bias, out = (rng.standard_normal(shape, np.float32) for shape in ((3, 128), 9, (3, 9)))
        arguments = [x, weight, *grid, bias, out, 9, 128, 128, 2, 2 ** (stored - 1)]
        constants = {"tokens": 3, "stored": stored, "element": F32, "bias": F32}
        made[f"few tokens, {stored} bits"] = (write_few_tokens, constants, arguments, [5])
    return made


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_the_bits_of_its_tiling_here(name: str, tmp_path: Path) -> None:
    write, constants, arguments, written = CASES[name]
    # Of outputs or tokens.
    count = OUTPUTS if write is write_product else 9 if write in (write_few_tokens, write_dequantize) else 3
    left, expected = emulated(tmp_path, write, constants, arguments, count), here(write, constants, arguments, count)
    for place in written:
        assert left[place] != np.asarray(arguments[place]).tobytes(), "nothing was written"
        assert left[place] == expected[place]
