"""Rotation and blockwise online quantization of activations (ARQ, Eq. 10): token by token, each while it is cached."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from llvmlite import ir

from dvdq_kernels.backends.cpu.code import F32, F64, I8, I32, Array, Code, Value, Variable, vector
from dvdq_kernels.backends.cpu.compilation import Kernel, float_bits, kernel
from dvdq_kernels.backends.cpu.floats import ELEMENTS, narrowed, readable, widened
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet, at_hand
from dvdq_kernels.backends.cpu.transform import choices, scratch_of, write_transform
from dvdq_kernels.registry import remembered
from dvdq_kernels.rotation import core_size, hadamard_size, rotation_signs
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.clip_factors import limit_of
from dvdq_reference.spec.recipe import Clip

_SIGN = -(2**31)
_SMALLEST_SCALE = 0x00800000
"""Bits of the smallest normal float32."""
_WORTH = 2**15
"""Values that a thread has to have, to be worth its start."""


class _Factors(NamedTuple):
    """Of a rotation: its size and m, what x is multiplied by, and the signs of H_m."""

    size: int
    core: int
    factors: torch.Tensor
    choices: torch.Tensor


@cache
def _factors(channels: int, kind: str, seed: int | None, dtype: torch.dtype) -> _Factors:
    size = hadamard_size(channels, kind)
    core = core_size(size)
    assert core is not None
    signs = rotation_signs(channels, kind, seed)
    with torch.inference_mode(False):
        ones = torch.ones(channels, dtype=torch.float64) if signs is None else torch.tensor(signs)
        return _Factors(size, core, (ones / size**0.5).to(dtype), torch.tensor(choices(core)))


def rotate(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
    """``X R`` in the dtype of ``x``; computed in float32, or float64 if that is its dtype."""
    rows = readable(x, at_hand())
    tokens, channels = rows.shape
    run, rotation, memory = _rotation(channels, kind, seed, rows.dtype)
    out = torch.empty(rows.shape, dtype=rows.dtype)
    addresses = rows.data_ptr(), rotation.factors.data_ptr(), rotation.choices.data_ptr(), out.data_ptr()
    run((*addresses, channels, rows.stride(0)), tokens, 1, _WORTH // channels + 1, memory)
    return out.to(x.dtype).view(x.shape)


def rotate_quantize(
    x: torch.Tensor,
    bits: int,
    block: int | None,
    clip: Clip,
    kind: str | None,
    seed: int | None,
    packed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes int8 ``[..., in]``, scale float32 ``[..., blocks]``, token sum float32 ``[...]``; computed in float32."""
    rows = readable(x if x.dtype != torch.float64 else x.to(torch.float32), at_hand())
    leading, (tokens, channels) = x.shape[:-1], rows.shape
    width = channels if block is None else block
    codes = torch.empty((*leading, channels), dtype=torch.int8)
    scale = torch.empty((*leading, channels // width), dtype=torch.float32)
    token_sum = torch.empty(leading, dtype=torch.float32)
    plan = _quantization(channels, kind, seed, rows.dtype, bits, clip, width)
    addresses = rows.data_ptr(), *plan.rotation, codes.data_ptr(), scale.data_ptr(), token_sum.data_ptr()
    sizes = channels, rows.stride(0), width, *plan.levels
    plan.run((*addresses, *sizes), tokens, 1, _WORTH // channels + 1, plan.memory)
    return codes, scale, token_sum


@remembered
def _rotation(channels: int, kind: str, seed: int | None, dtype: torch.dtype) -> tuple[Kernel, _Factors, int]:
    """The kernel, its rotation, and bytes of scratch."""
    work = torch.float64 if dtype == torch.float64 else torch.float32
    rotation = _factors(channels, kind, seed, work)
    kinds = {"element": ELEMENTS[dtype], "work": ELEMENTS[work]}
    run = kernel(write_rotate, at_hand(), **kinds, size=rotation.size, core=rotation.core)
    return run, rotation, _scratch_bytes(channels, rotation.core, work)


class _Plan(NamedTuple):
    """What quantizes tokens of one size.

    Attributes:
        run: the kernel.
        rotation: the addresses of what x is multiplied by and of the signs of H_m; zeros without one.
        levels: the least code, the largest, and the divisor of scales as a float's bits.
        memory: bytes of scratch.
    """

    run: Kernel
    rotation: tuple[int, int]
    levels: tuple[int, int, int]
    memory: int


@remembered
def _quantization(
    channels: int, kind: str | None, seed: int | None, dtype: torch.dtype, bits: int, clip: Clip, width: int
) -> _Plan:
    size, core, addresses = 0, 1, (0, 0)
    if kind is not None:
        rotation = _factors(channels, kind, seed, torch.float32)
        size, core = rotation.size, rotation.core
        addresses = rotation.factors.data_ptr(), rotation.choices.data_ptr()
    signed = clip == "signed"
    run = kernel(write_rotate_quantize, at_hand(), element=ELEMENTS[dtype], size=size, core=core, signed=signed)
    low, high = signed_range(bits)
    levels = low, high, float_bits(limit_of(clip, bits, width))
    return _Plan(run, addresses, levels, _scratch_bytes(channels, core, torch.float32))


def _scratch_bytes(channels: int, core: int, work: torch.dtype) -> int:
    return scratch_of(channels, core, at_hand().width // work.itemsize) * work.itemsize


def write_rotate(
    module: ir.Module, instructions: InstructionSet, *, element: ir.Type, work: ir.Type, size: int, core: int
) -> Code:
    """``out[t] = x[t] R`` for some tokens."""
    arrays = {"x": element, "factors": work, "choices": I32, "out": element, "scratch": work}
    code = Code(module, "rotate", arrays, ("first", "last", "channels", "stride"))
    lanes = instructions.width // (8 if work == F64 else 4)
    channels = code.number("channels")
    with code.loop(code.number("first"), code.number("last")) as token:
        out = code.array("out").at(token * channels)
        rotated = _rotated(code, token, size, core, lanes)
        _over(code, 0, channels, lanes, lambda k, n: out.store(k, narrowed(rotated.load(k, n), element)))
    return code


def write_rotate_quantize(
    module: ir.Module, instructions: InstructionSet, *, element: ir.Type, size: int, core: int, signed: bool
) -> Code:
    """``s = x_max / divisor`` a block, ``v = clamp(round(x̃ / s))``, ``Σ s v`` a token, for some tokens.

    Without a rotation ``size`` is 0; ``signed`` is whether ``x_max`` has its sign.
    """
    inputs = {"x": element, "factors": F32, "choices": I32}
    arrays = inputs | {"codes": I8, "scale": F32, "token_sum": F32, "scratch": F32}
    numbers = ("first", "last", "channels", "stride", "width", "low", "high")
    code = Code(module, "rotate_quantize", arrays, numbers, ("divisor",))
    channels, width, lanes = code.number("channels"), code.number("width"), instructions.lanes
    blocks = channels // width
    with code.loop(code.number("first"), code.number("last")) as token:
        rotated = _rotated(code, token, size, core, lanes)
        token_sum = Variable(code, code.constant(F32, 0))
        with code.loop(0, blocks) as block:
            values = rotated.at(block * width)
            scale = _scale(code, values, width, lanes, signed=signed)
            code.array("scale").store(token * blocks + block, scale)
            codes = code.array("codes").at(token * channels + block * width)
            token_sum += _encode(code, values, scale, codes, width, lanes).to(F32) * scale
        code.array("token_sum").store(token, token_sum.value)
    return code


def _rotated(code: Code, token: Value, size: int, core: int, lanes: int) -> Array:
    """A token's values, rotated unless ``size`` is 0, in scratch."""
    channels, scratch = code.number("channels"), code.array("scratch")
    spare = scratch.at(channels)
    x = code.array("x").at(token * code.number("stride"))
    if not size:
        _over(code, 0, channels, lanes, lambda k, n: scratch.store(k, widened(x.load(k, n))))
        return scratch
    with code.loop(0, channels, size) as start:
        values, factors = x.at(start), code.array("factors").at(start)

        def load(place: Value, count: int) -> Value:
            value = widened(values.load(place, count))
            return value.to(scratch.element)

        row, other, sums = scratch.at(start), spare.at(start), spare.at(channels)
        write_transform(code, load, factors, code.array("choices"), row, other, sums, size, core, lanes)
    return scratch if core == 1 else spare


def _over(code: Code, start: int, stop: Value, lanes: int, body: object) -> None:
    """``body(place, lanes)`` for whole registers, then lane by lane."""
    assert callable(body)
    whole = stop // lanes * lanes
    for first, end, count in ((code.index(start), whole, lanes), (whole, stop, 1)):
        with code.loop(first, end, count) as place:
            body(place, count)


def _scale(code: Code, values: Array, width: Value, lanes: int, *, signed: bool) -> Value:
    """``x_max / divisor``, 1 for a block of zeros, NaN where there is one.

    What is compared are integers in the order of magnitudes, NaN above all others. If they are ``signed``, a value's
    sign is the last bit, so that of two of a magnitude the negative one is the larger.
    """
    none = _SIGN if signed else 0
    largest = {count: Variable(code, code.constant(vector(I32, count), none)) for count in (lanes, 1)}

    def look(place: Value, count: int) -> None:
        bits = values.load(place, count).bits_as(vector(I32, count))
        key = (bits << 1 | bits >> 31) + _SIGN if signed else bits & 0x7FFFFFFF
        largest[count].value = code.larger(largest[count].value, key)

    _over(code, 0, width, lanes, look)
    found = code.larger(*(variable.value.folded(code.larger) for variable in largest.values())) - none
    if signed:
        found = found >> 1 | found << 31
    scale = found.bits_as(F32) / code.number("divisor")
    bits = scale.bits_as(I32)
    smallest = (bits & _SIGN | _SMALLEST_SCALE).bits_as(F32)
    scale = ((bits & 0x7FFFFFFF) < _SMALLEST_SCALE).select(smallest, scale)
    return ((found & 0x7FFFFFFF) < 1).select(code.constant(F32, 1), scale)


def _encode(code: Code, values: Array, scale: Value, codes: Array, width: Value, lanes: int) -> Value:
    """The codes of a block, and their sum."""
    low, high = (code.number(name).to(F32) for name in ("low", "high"))
    sums = {count: Variable(code, code.constant(vector(I32, count), 0)) for count in (lanes, 1)}

    def encode(place: Value, count: int) -> None:
        rounded = code.rounded(values.load(place, count) / scale.splat(count))
        v = code.clamped(rounded, low.splat(count), high.splat(count)).to(I32)
        codes.store(place, v.to(I8))
        sums[count] += v

    _over(code, 0, width, lanes, encode)
    return sums[lanes].value.sum() + sums[1].value.sum()
