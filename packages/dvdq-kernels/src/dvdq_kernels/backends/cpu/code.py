"""A small language for loops over SIMD values: Python that writes LLVM IR, one function at a time.

A :class:`Value` is a scalar or a vector in a register, with Python's operators; a :class:`Variable` is one that a loop
changes; an :class:`Array` is memory of one element type. Lists of them are unrolled by Python itself, so that a tile of
accumulators is a list of lists. Nothing here knows a processor: what only some have is in
:mod:`~dvdq_kernels.backends.cpu.instruction_sets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
POINTER = ir.PointerType()
_FLOATS = (F16, F32, F64)


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """The type of ``lanes`` values of ``element``."""
    return ir.VectorType(element, lanes)


def _element(type_: ir.Type) -> ir.Type:
    return type_.element if isinstance(type_, ir.VectorType) else type_


class Value:
    """A scalar or a vector. Operators take another value of its type, or a Python number, which stands for all lanes.

    ``>>`` and ``<`` take integers as unsigned and as signed, which is what codes and indices are.
    """

    def __init__(self, code: Code, value: Any) -> None:
        self.code, self.ir = code, value

    @property
    def type(self) -> ir.Type:
        """Its type in LLVM."""
        return self.ir.type

    @property
    def lanes(self) -> int:
        """Of a vector."""
        return int(self.type.count)

    def _with(self, other: Value | float, integers: str, floats: str) -> Value:
        operand = other if isinstance(other, Value) else self.code.constant(self.type, other)
        name = floats if _element(self.type) in _FLOATS else integers
        return Value(self.code, getattr(self.code.builder, name)(self.ir, operand.ir))

    def __add__(self, other: Value | float) -> Value:
        return self._with(other, "add", "fadd")

    def __sub__(self, other: Value | float) -> Value:
        return self._with(other, "sub", "fsub")

    def __mul__(self, other: Value | float) -> Value:
        return self._with(other, "mul", "fmul")

    def __truediv__(self, other: Value | float) -> Value:
        return self._with(other, "", "fdiv")

    def __floordiv__(self, other: Value | int) -> Value:
        return self._with(other, "sdiv", "")

    def __and__(self, other: Value | int) -> Value:
        return self._with(other, "and_", "")

    def __or__(self, other: Value | int) -> Value:
        return self._with(other, "or_", "")

    def __lshift__(self, other: Value | int) -> Value:
        return self._with(other, "shl", "")

    def __rshift__(self, other: Value | int) -> Value:
        return self._with(other, "lshr", "")

    def __lt__(self, other: Value | float) -> Value:
        operand = other if isinstance(other, Value) else self.code.constant(self.type, other)
        builder = self.code.builder
        compare = builder.fcmp_ordered if _element(self.type) in _FLOATS else builder.icmp_signed
        return Value(self.code, compare("<", self.ir, operand.ir))

    def bits_as(self, type_: ir.Type) -> Value:
        """The same bits as another type."""
        return Value(self.code, self.code.builder.bitcast(self.ir, type_))

    def to(self, element: ir.Type, *, signed: bool = True) -> Value:
        """The same numbers in another element type: integers keep their low bits, floats lose their fraction."""
        target = vector(element, self.lanes) if isinstance(self.type, ir.VectorType) else element
        source = _element(self.type)
        builder = self.code.builder
        if isinstance(source, ir.IntType) and isinstance(element, ir.IntType):
            widen = builder.sext if signed else builder.zext
            convert = widen if element.width > source.width else builder.trunc
        elif isinstance(source, ir.IntType):
            convert = builder.sitofp if signed else builder.uitofp
        elif isinstance(element, ir.IntType):
            convert = builder.fptosi
        else:
            convert = builder.fpext if _WIDTHS[str(element)] > _WIDTHS[str(source)] else builder.fptrunc
        return self if target == self.type else Value(self.code, convert(self.ir, target))

    def splat(self, lanes: int) -> Value:
        """A scalar in every lane."""
        one = self.code.builder.insert_element(
            ir.Constant(vector(self.type, lanes), ir.Undefined), self.ir, ir.Constant(I32, 0)
        )
        return Value(self.code, one).shuffle([0] * lanes)

    def shuffle(self, order: Sequence[int], other: Value | None = None) -> Value:
        """The lanes named, those of ``other`` counted on from the last of its own."""
        undefined = ir.Constant(self.type, ir.Undefined) if other is None else other.ir
        mask = ir.Constant(vector(I32, len(order)), list(order))
        return Value(self.code, self.code.builder.shuffle_vector(self.ir, undefined, mask))

    def select(self, yes: Value, no: Value) -> Value:
        """``yes`` where it is true, else ``no``."""
        return Value(self.code, self.code.builder.select(self.ir, yes.ir, no.ir))

    def folded(self, join: Callable[[Value, Value], Value]) -> Value:
        """All lanes joined: halves with one another, until one is left."""
        total, lanes = self, self.lanes
        while lanes > 1:
            lanes //= 2
            total = join(total.shuffle(range(lanes)), total.shuffle(range(lanes, 2 * lanes)))
        return Value(self.code, self.code.builder.extract_element(total.ir, ir.Constant(I32, 0)))

    def sum(self) -> Value:
        """Of all lanes."""
        return self.folded(Value.__add__)


_PREFETCH = "llvm.prefetch.p0"

_WIDTHS = {str(F16): 16, str(F32): 32, str(F64): 64}


class Variable:
    """What a loop changes, e.g. an accumulator: ``total += value`` and ``total.value = value``."""

    def __init__(self, code: Code, initial: Value) -> None:
        self.code = code
        self.place, self.type = code.reserve(initial.type), initial.type
        self.value = initial

    @property
    def value(self) -> Value:
        """What it is now."""
        return Value(self.code, self.code.builder.load(self.place, typ=self.type))

    @value.setter
    def value(self, value: Value) -> None:
        self.code.builder.store(value.ir, self.place)

    def __iadd__(self, other: Value) -> Variable:
        self.value = self.value + other
        return self


class Array:
    """Memory from an address on, of one element type; vectors need no alignment."""

    def __init__(self, code: Code, address: Any, element: ir.Type) -> None:
        self.code, self.address, self.element = code, address, element

    def at(self, index: Value | int) -> Array:
        """From the element ``index`` on."""
        place = self.code.index(index)
        address = self.code.builder.gep(self.address, [place.ir], source_etype=self.element)
        return Array(self.code, address, self.element)

    def of(self, element: ir.Type) -> Array:
        """The same memory as other elements."""
        return Array(self.code, self.address, element)

    def load(self, index: Value | int = 0, lanes: int | None = None) -> Value:
        """The element ``index``, or as many from there on."""
        type_ = self.element if lanes is None else vector(self.element, lanes)
        value = self.code.builder.load(self.at(index).address, typ=type_, align=_bytes(self.element))
        return Value(self.code, value)

    def store(self, index: Value | int, value: Value) -> None:
        """The inverse of :meth:`load`."""
        self.code.builder.store(value.ir, self.at(index).address, align=_bytes(self.element))

    def prefetch(self, index: Value | int) -> None:
        """Asks for the element ``index`` ahead of its use, into the nearest cache."""
        signature = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
        module = self.code.function.module
        function = module.globals.get(_PREFETCH) or ir.Function(module, signature, _PREFETCH)
        reading, near, data = (ir.Constant(I32, number) for number in (0, 3, 1))
        self.code.builder.call(function, [self.at(index).address, reading, near, data])

    @property
    def given(self) -> Value:
        """Whether the address is not null."""
        number = self.code.builder.ptrtoint(self.address, I64)
        return Value(self.code, self.code.builder.icmp_unsigned("!=", number, ir.Constant(I64, 0)))


def _bytes(element: ir.Type) -> int:
    if isinstance(element, ir.PointerType):
        return 8
    return element.width // 8 if isinstance(element, ir.IntType) else _WIDTHS[str(element)] // 8


class Code:
    """A function that is being written. Its parameters are arrays of an element type, 64-bit integers and float32."""

    def __init__(
        self,
        module: ir.Module,
        name: str,
        arrays: dict[str, ir.Type],
        numbers: Sequence[str],
        floats: Sequence[str] = (),
    ) -> None:
        types = [POINTER] * len(arrays) + [I64] * len(numbers) + [F32] * len(floats)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), types), name)
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        addresses, scalars = self.function.args[: len(arrays)], self.function.args[len(arrays) :]
        for address in addresses:
            address.add_attribute("noalias")
        self.parameters: dict[str, ir.Type] = dict(zip((*arrays, *numbers, *floats), types, strict=True))
        self._arrays = {
            name: Array(self, address, element)
            for (name, element), address in zip(arrays.items(), addresses, strict=True)
        }
        self._numbers = {name: Value(self, scalar) for name, scalar in zip((*numbers, *floats), scalars, strict=True)}

    def array(self, name: str) -> Array:
        """A parameter."""
        return self._arrays[name]

    def number(self, name: str) -> Value:
        """A parameter."""
        return self._numbers[name]

    def constant(self, type_: ir.Type, number: float) -> Value:
        """A number, in all lanes if ``type_`` is a vector's."""
        element = _element(type_)
        one = int(number) if isinstance(element, ir.IntType) else float(number)
        return Value(self, ir.Constant(type_, [one] * type_.count if isinstance(type_, ir.VectorType) else one))

    def lanes(self, element: ir.Type, numbers: Sequence[float]) -> Value:
        """A vector of these."""
        return Value(self, ir.Constant(vector(element, len(numbers)), list(numbers)))

    def index(self, value: Value | int) -> Value:
        """A 64-bit integer."""
        return value if isinstance(value, Value) else self.constant(I64, value)

    def call(self, name: str, result: ir.Type, *operands: Value) -> Value:
        """An intrinsic of LLVM."""
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        module = self.function.module
        function = module.globals.get(name) or ir.Function(module, signature, name)
        return Value(self, self.builder.call(function, [operand.ir for operand in operands]))

    def call_at(self, address: Value, result: ir.Type) -> Value:
        """A function without parameters, by its address."""
        function = self.builder.inttoptr(address.ir, ir.FunctionType(result, []).as_pointer())
        return Value(self, self.builder.call(function, []))

    def pointer(self, address: Value) -> Value:
        """A number as an address."""
        return Value(self, self.builder.inttoptr(address.ir, POINTER))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a · b + c``, rounded once."""
        return self._float("fma", a, b, c)

    def smaller(self, a: Value, b: Value) -> Value:
        """Of two integers."""
        return (a < b).select(a, b)

    def larger(self, a: Value, b: Value) -> Value:
        """Of two integers."""
        return (a < b).select(b, a)

    def rounded(self, a: Value) -> Value:
        """To the nearest whole number, half to even."""
        return self._float("rint", a)

    def clamped(self, a: Value, low: Value, high: Value) -> Value:
        """``max(min(a, high), low)``; a NaN becomes ``high``, as one instruction of x86 has it."""
        below = (a < high).select(a, high)
        return (low < below).select(below, low)

    def _float(self, name: str, *operands: Value) -> Value:
        type_ = operands[0].type
        lanes = f"v{type_.count}" if isinstance(type_, ir.VectorType) else ""
        return self.call(f"llvm.{name}.{lanes}f{_WIDTHS[str(_element(type_))]}", type_, *operands)

    def scratch(self, element: ir.Type, count: int) -> Array:
        """A little memory of the function's own."""
        return Array(self, self.reserve(ir.ArrayType(element, count)), element)

    def reserve(self, type_: ir.Type) -> Any:
        """The address of memory on the stack."""
        with self.builder.goto_entry_block():
            place = self.builder.alloca(type_)
        # llvmlite remembers what an address points to where LLVM no longer does.
        place.type = POINTER
        return place

    @contextmanager
    def loop(self, start: Value | int, stop: Value | int, step: int = 1) -> Iterator[Value]:
        """``for index in range(start, stop, step)``."""
        first, end = self.index(start), self.index(stop)
        before = self.builder.block
        header, body, after = (self.builder.append_basic_block() for _ in range(3))
        self.builder.branch(header)
        self.builder.position_at_end(header)
        index = self.builder.phi(I64)
        index.add_incoming(first.ir, before)
        self.builder.cbranch(self.builder.icmp_signed("<", index, end.ir), body, after)
        self.builder.position_at_end(body)
        yield Value(self, index)
        following = self.builder.add(index, ir.Constant(I64, step), flags=("nsw",))
        index.add_incoming(following, self.builder.block)
        self.builder.branch(header)
        self.builder.position_at_end(after)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """``if condition``."""
        with self.builder.if_then(condition.ir):
            yield

    def finish(self) -> None:
        """The end of the function."""
        self.builder.ret_void()
