"""Full activations and packed weights (W4A16), as they are written for an instruction set: weights are decoded in the
loop, since for a few tokens reading them is all that takes time.

A code becomes a float32 by its bits: at the top of a mantissa it is ``1 + q / 2^s``, s the bits that a code takes.
"""

from __future__ import annotations

from llvmlite import ir

from dvdq_kernels.backends.cpu.code import F32, I8, I16, I32, Array, Code, Value, Variable, vector
from dvdq_kernels.backends.cpu.floats import narrowed, widened
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet

ROWS = 4
"""Outputs that are computed together, so that additions need not wait for one another."""


def write_few_tokens(
    module: ir.Module, instructions: InstructionSet, *, tokens: int, stored: int, element: ir.Type, bias: ir.Type
) -> Code:
    """``out[t, n] = Σ_g Δ Σ_{k∈g} x (q - z) + bias[n]`` for all of a few tokens and some outputs.

    A decoded code less ``1 + z / 2^s`` is ``(q - z) / 2^s``, exactly. Groups are whole registers of words. Where there
    is no z, it is ``middle``.
    """
    arrays = {"x": element, "qweight": I8, "scale": F32, "zero": I16, "bias": bias, "out": element, "scratch": F32}
    numbers = ("first", "last", "outputs", "channels", "stride", "groups", "middle")
    code = Code(module, "few_tokens", arrays, numbers)
    lanes, per_word = instructions.lanes, 32 // stored
    channels, groups, last = code.number("channels"), code.number("groups"), code.number("last")
    row_bytes, width = channels * stored // 8, channels // groups
    rows_of_x = [code.array("scratch").at(channels * t) for t in range(tokens)]
    for t in range(tokens):
        x = code.array("x").at(code.number("stride") * t)
        _in_order_of_words(x, rows_of_x[t], channels, per_word, lanes)
    with code.loop(code.number("first"), last, ROWS) as output:
        rows = [code.smaller(output + r, last - 1) for r in range(ROWS)]
        weights = [code.array("qweight").at(row * row_bytes) for row in rows]
        following = [code.array("qweight").at(code.smaller(row + ROWS, last - 1) * row_bytes) for row in rows]
        zero = code.constant(F32, 0)
        totals = [[Variable(code, zero) for _ in range(tokens)] for _ in rows]
        with code.loop(0, groups) as group:
            centres = [_centre(code, row * groups + group, stored).splat(lanes) for row in rows]
            empty = code.constant(vector(F32, lanes), 0)
            sums = [[[Variable(code, empty) for _ in range(2)] for _ in range(tokens)] for _ in rows]
            with code.loop(group * width, (group + 1) * width, lanes * per_word) as channel:
                for weight in following:
                    weight.prefetch(channel * stored // 8)
                words = [
                    weight.load(channel * stored // 8, 4 * lanes).bits_as(vector(I32, lanes)) for weight in weights
                ]
                for i in range(per_word):
                    values = [row.load(channel + i * lanes, lanes) for row in rows_of_x]
                    for r, word in enumerate(words):
                        decoded = _decoded(word, i, stored) - centres[r]
                        for t, value in enumerate(values):
                            total = sums[r][t][i % 2]
                            total.value = code.fma(decoded, value, total.value)
            for r, row in enumerate(rows):
                delta = code.array("scale").load(row * groups + group) * float(2**stored)
                for t in range(tokens):
                    totals[r][t] += (sums[r][t][0].value + sums[r][t][1].value).sum() * delta
        for r, row in enumerate(rows):
            shift = Variable(code, zero)
            with code.when(code.array("bias").given):
                shift.value = widened(code.array("bias").load(row))
            for t in range(tokens):
                result = narrowed(totals[r][t].value + shift.value, element)
                code.array("out").store(row + code.number("outputs") * t, result)
    return code


def _in_order_of_words(x: Array, row: Array, channels: Value, per_word: int, lanes: int) -> None:
    """A token as words of codes lie in registers: ``[in / (lanes · codes)][codes][lanes]``, codes to a word."""
    code = x.code
    with code.loop(0, channels, lanes * per_word) as start, code.loop(0, lanes) as lane:
        for i in range(per_word):
            row.store(start + lane + i * lanes, widened(x.load(start + lane * per_word + i)))


def _centre(code: Code, place: Value, stored: int) -> Value:
    """What code z decodes to: ``1 + z / 2^s``."""
    return _zero(code, place) * 2.0**-stored + 1.0


def _zero(code: Code, place: Value) -> Value:
    """z of a row and group."""
    zero = Variable(code, code.number("middle").to(F32))
    with code.when(code.array("zero").given):
        zero.value = code.array("zero").load(place).to(F32)
    return zero.value


def _decoded(word: Value, i: int, stored: int) -> Value:
    """``1 + q / 2^s`` of the i-th code of each word."""
    shift = 23 - stored - i * stored
    moved = word << shift if shift >= 0 else word >> -shift
    return ((moved & (((1 << stored) - 1) << (23 - stored))) | 0x3F800000).bits_as(vector(F32, word.lanes))


def write_dequantize(module: ir.Module, instructions: InstructionSet, *, stored: int) -> Code:
    """``out[n, k] = Δ (q - z)`` for some outputs."""
    arrays = {"qweight": I8, "scale": F32, "zero": I16, "out": F32}
    code = Code(module, "dequantize", arrays, ("first", "last", "channels", "groups", "middle"))
    per_word = 32 // stored
    channels, groups = code.number("channels"), code.number("groups")
    width = channels // groups
    # Groups that end inside a word are decoded code by code.
    whole = (width & (per_word - 1) < 1).select(width, code.index(0))
    shifts = code.lanes(I32, [i * stored for i in range(per_word)])
    with code.loop(code.number("first"), code.number("last")) as row, code.loop(0, groups) as group:
        place = row * groups + group
        delta = code.array("scale").load(place)
        zero = _zero(code, place)
        start = row * channels + group * width
        for first, end, count in ((code.index(0), whole, per_word), (whole, width, 1)):
            with code.loop(first, end, count) as k:
                channel = start + k
                if count == per_word:
                    word = code.array("qweight").load(channel * stored // 8, 4).bits_as(I32).splat(per_word)
                    codes = (word >> shifts) & (2**stored - 1)
                else:
                    byte = code.array("qweight").load(channel * stored // 8).to(I32, signed=False)
                    shift = (channel * stored & 7).to(I32)
                    codes = ((byte >> shift) & (2**stored - 1)).splat(1)
                values = (codes.to(F32) - zero.splat(count)) * delta.splat(count)
                code.array("out").store(channel, values)
    return code
