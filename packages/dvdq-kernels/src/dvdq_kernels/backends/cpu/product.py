"""The integer product, as it is written for an instruction set.

Lanes are outputs. A tile of some outputs of the weight, all input channels deep, is brought from rows of nibbles into
``[channels / 4][outputs][4]`` bytes of scratch memory that stays in the cache; then every token passes over it. Four
activation codes in every lane, times four nibbles a lane, are one step. A part is the input
channels that share both scales: its sum starts at ``-2^(b-1) Σ v``, so that codes multiply unsigned, and is exact;
between parts sums are float32.
"""

from __future__ import annotations

from llvmlite import ir

from dvdq_kernels.backends.cpu.code import F32, I8, I16, I32, Array, Code, Value, Variable
from dvdq_kernels.backends.cpu.floats import narrowed, widened
from dvdq_kernels.backends.cpu.instruction_sets import InstructionSet

_SQUARE = 8
"""Rows and words that are transposed in registers."""


def outputs_of(instructions: InstructionSet) -> int:
    """Outputs of a tile."""
    return instructions.tile[1] * instructions.lanes


def scratch_of(instructions: InstructionSet, channels: int, stored: int, groups: int) -> int:
    """32-bit words of scratch for a tile of the weight and its grid; sums of codes follow, one a token and part."""
    return outputs_of(instructions) * (channels * stored // 16 + 2 * groups + 1)


def write_product(
    module: ir.Module,
    instructions: InstructionSet,
    *,
    limit: int | None,
    stored: int,
    grouped: bool,
    output: ir.Type,
    bias: ir.Type,
) -> Code:
    """``out[t, n] = Σ_p s Δ (Σ_{k∈p} v u - (z - 2^(b-1)) Σ_{k∈p} v) + bias[n]`` for some tokens and outputs.

    Weight codes take ``stored`` bits, and a partial sum of 16 bits ``limit`` steps. ``width`` is that of a part, a
    multiple of 8; ``middle`` is ``2^(b-1)``. With one Δ a row, ``grouped`` is false: Δ and z are outside the sum, and
    ``Σ_p s Σ v`` is what ``token_sum`` says.
    """
    code = Code(
        module,
        "product",
        {
            "codes": I8,
            "x_scale": F32,
            "token_sum": F32,
            "weight": I8,
            "scale": F32,
            "zero": I16,
            "bias": bias,
            "out": output,
            "scratch": I32,
        },
        ("first", "last", "tokens", "outputs", "channels", "width", "blocks", "groups",
         "chunk", "middle"),
    )  # fmt: skip
    product = _Product(code, instructions, limit, stored, grouped)
    chunk = code.number("chunk")
    # As many tokens at a time as stay in the cache with a tile of the weight.
    tokens = code.number("tokens")
    start = Variable(code, code.index(0))
    chunks = (tokens + chunk - 1) // chunk
    with code.loop(0, chunks):
        first = start.value
        end = code.smaller(first + chunk, tokens)
        product.add_codes(first, end)
        with code.loop(code.number("first"), code.number("last"), product.outputs) as output_:
            product.gather_grid(output_)
            product.gather_weight(output_)
            with code.loop(first, end, instructions.tile[0]) as token:
                product.multiply(token, first, end, output_, output)
        start.value = end
    return code


class _Product:
    """What the steps of a product share: its parameters, sizes that follow from them, and where scratch lies."""

    def __init__(self, code: Code, instructions: InstructionSet, limit: int | None, stored: int, grouped: bool) -> None:
        self.code, self.instructions, self.limit, self.grouped = code, instructions, limit, grouped
        self.packed = stored == 4
        self.middle = code.number("middle").to(I32)
        self.outputs = outputs_of(instructions)
        self.channels, self.width = code.number("channels"), code.number("width")
        self.groups = code.number("groups")
        self.parts = self.channels // self.width
        self.fours = self.channels // 4
        # Scratch: the tile of the weight, its grid (Δ, z - 2^(b-1), bias), then the sums of codes.
        self.tile = code.array("scratch")
        self.delta = self.tile.at(self.fours * (self.outputs * (1 if self.packed else 2))).of(F32)
        self.offset = self.delta.at(self.groups * self.outputs)
        self.shift = self.offset.at(self.groups * self.outputs)
        self.sums = self.shift.at(self.outputs).of(I32)

    def add_codes(self, first: Value, end: Value) -> None:
        """``Σ v`` of each token and part."""
        code, instructions = self.code, self.instructions
        register = instructions.width
        ones = code.constant(ir.VectorType(I8, register), 1)
        whole = self.width // register * register
        with code.loop(first, end) as token, code.loop(0, self.parts) as part:
            codes = code.array("codes").at(token * self.channels + part * self.width)
            total = Variable(code, code.constant(ir.VectorType(I32, instructions.lanes), 0))
            with code.loop(0, whole, register) as k:
                step = instructions.step(None, ones, codes.load(k, register))
                total += instructions.widened(step)
            rest = Variable(code, total.value.sum())
            with code.loop(whole, self.width) as k:
                rest += codes.load(k).to(I32)
            self.sums.store((token - first) * self.parts + part, rest.value)

    def gather_grid(self, output: Value) -> None:
        """Δ, ``z - 2^(b-1)`` and bias of a tile's outputs; the last output stands for those that are not there."""
        code = self.code
        zero, bias = code.array("zero"), code.array("bias")
        with code.loop(0, self.outputs) as n:
            row = code.smaller(output + n, code.number("outputs") - 1)
            with code.loop(0, self.groups) as group:
                place = group * self.outputs + n
                self.delta.store(place, code.array("scale").load(row * self.groups + group))
                offset = Variable(code, code.constant(F32, 0))
                with code.when(zero.given):
                    offset.value = (zero.load(row * self.groups + group).to(I32) - self.middle).to(F32)
                self.offset.store(place, offset.value)
            shift = Variable(code, code.constant(F32, 0))
            with code.when(bias.given):
                shift.value = widened(bias.load(row))
            self.shift.store(n, shift.value)

    def gather_weight(self, output: Value) -> None:
        """A tile's rows as they are multiplied: transposed, a byte a nibble."""
        code = self.code
        weight = code.array("weight")
        per_word = 8 if self.packed else 4
        words = self.channels // per_word
        whole, last = words // _SQUARE * _SQUARE, code.number("outputs") - 1
        for start in range(0, self.outputs, _SQUARE):
            outputs = [code.smaller(output + n, last) for n in range(start, start + _SQUARE)]
            rows = [weight.at(n * (words * 4)) for n in outputs]
            # Rows are too short for a processor to see by itself that they follow one another.
            following = [weight.at(code.smaller(n + _SQUARE, last) * (words * 4)) for n in outputs]
            with code.loop(0, whole, _SQUARE) as word:
                for row in following:
                    row.prefetch(word * 4)
                loaded = [row.load(word * 4, 4 * _SQUARE).bits_as(ir.VectorType(I32, _SQUARE)) for row in rows]
                for i, column in enumerate(_transposed(loaded)):
                    self._store_nibbles(word + i, start, column)
            with code.loop(whole, words) as word:
                for n, row in enumerate(rows):
                    self._store_nibbles(word, start + n, row.load(word * 4, 4).bits_as(I32))

    def _store_nibbles(self, word: Value, output: int, value: Value) -> None:
        """A word of one output, or of several in lanes, as bytes of four channels."""
        if self.packed:
            fours = ((word * 2, _spread(value & 0xFFFF)), (word * 2 + 1, _spread(value >> 16)))
        else:
            fours = ((word, value & 0x0F0F0F0F), (word + self.fours, (value >> 4) & 0x0F0F0F0F))
        for four, nibbles in fours:
            self.tile.store(four * self.outputs + output, nibbles)

    def multiply(self, token: Value, first: Value, end: Value, output: Value, element: ir.Type) -> None:
        """One tile of tokens and outputs, written to ``out``."""
        code, instructions = self.code, self.instructions
        rows, columns = instructions.tile
        lanes = instructions.lanes
        # Tokens past the end are the last one once more, and are not written.
        tokens = [code.smaller(token + t, end - 1) for t in range(rows)]
        codes = [code.array("codes").at(t * self.channels) for t in tokens]
        zeros = code.constant(ir.VectorType(F32, lanes), 0)
        totals = [[Variable(code, zeros) for _ in range(columns)] for _ in tokens]
        block_of = self.width * code.number("blocks")
        with code.loop(0, self.parts) as part:
            code_sums = [self.sums.load((t - first) * self.parts + part) for t in tokens]
            sums = self._part(codes, code_sums, part)
            block = part * block_of // self.channels
            group = part * self.width * self.groups // self.channels
            for t, row in enumerate(tokens):
                s = code.array("x_scale").load(row * code.number("blocks") + block).splat(lanes)
                for c in range(columns):
                    value = sums[t][c].to(F32)
                    if self.grouped:
                        place = group * self.outputs + c * lanes
                        v = code_sums[t].to(F32).splat(lanes)
                        value = value - self.offset.load(place, lanes) * v
                        totals[t][c].value = code.fma(value, s * self.delta.load(place, lanes), totals[t][c].value)
                    else:
                        totals[t][c].value = code.fma(value, s, totals[t][c].value)
        whole = output + self.outputs < code.number("outputs") + 1
        for t, row in enumerate(tokens):
            results = []
            for c in range(columns):
                value = totals[t][c].value
                if not self.grouped:
                    r = code.array("token_sum").load(row).splat(lanes)
                    value = (value - self.offset.load(c * lanes, lanes) * r) * self.delta.load(c * lanes, lanes)
                results.append(narrowed(value + self.shift.load(c * lanes, lanes), element))
            with code.when(token + t < end):
                out = code.array("out").at(row * code.number("outputs") + output)
                with code.builder.if_else(whole.ir) as (inside, over):
                    with inside:
                        for c, value in enumerate(results):
                            out.store(c * lanes, value)
                    with over:
                        edge = code.scratch(element, self.outputs)
                        for c, value in enumerate(results):
                            edge.store(c * lanes, value)
                        with code.loop(0, code.number("outputs") - output) as n:
                            out.store(n, edge.load(n))

    def _part(self, codes: list[Array], code_sums: list[Value], part: Value) -> list[list[Value]]:
        """``Σ v u`` over a part, of each token and register of outputs."""
        code = self.code
        columns, lanes = self.instructions.tile[1], self.instructions.lanes
        starts = [(total * -1 * self.middle).splat(lanes) for total in code_sums]
        sums = [[Variable(code, start) for _ in range(columns)] for start in starts]
        first = part * (self.width // 4)
        for plane in (0,) if self.packed else (0, 1):
            start, last = first, first + self.width // 4
            for count in _STRAIGHT:
                stop = start + (last - start) // count * count
                with code.loop(start, stop, count) as four:
                    self._steps(codes, sums, four, count, plane)
                start = stop
        return [[total.value for total in row] for row in sums]

    def _steps(self, codes: list[Array], sums: list[list[Variable]], four: Value, count: int, plane: int) -> None:
        """``count`` steps of four channels; of codes of 8 bits, with one of their two nibbles."""
        instructions, lanes = self.instructions, self.instructions.lanes
        register = ir.VectorType(I8, 4 * lanes)
        limit = self.limit
        partial: list[list[Value | None]] = [[None for _ in row] for row in sums]
        if limit is None and not plane:
            partial = [[total.value for total in row] for row in sums]
        for i in range(count):
            place = (four + i + self.fours * plane) * self.outputs
            nibbles = [self.tile.load(place + c * lanes, lanes).bits_as(register) for c in range(instructions.tile[1])]
            for t, row in enumerate(codes):
                activations = row.load((four + i) * 4, 4).bits_as(I32).splat(lanes).bits_as(register)
                partial[t] = [instructions.step(p, n, activations) for p, n in zip(partial[t], nibbles, strict=True)]
            if i + 1 < count and (limit is None or (i + 1) % limit):
                continue
            for totals, values in zip(sums, partial, strict=True):
                for total, value in zip(totals, values, strict=True):
                    assert value is not None
                    wide = instructions.widened(value)
                    if limit is None and not plane:
                        total.value = wide
                    else:
                        total += wide << 4 if plane else wide
            partial = [[None for _ in row] for row in sums]


_STRAIGHT = (8, 2)
"""Steps without a loop between them; a part has its rest done in fewer and fewer."""


def _spread(half: Value) -> Value:
    """Nibbles 0 … 3 of 16 bits to nibbles 0, 2, 4, 6."""
    bytes_ = (half | (half << 8)) & 0x00FF00FF
    return (bytes_ | (bytes_ << 4)) & 0x0F0F0F0F


def _transposed(rows: list[Value]) -> list[Value]:
    """Eight vectors of eight as columns: pairs of lanes change places at distances 1, 2 and 4."""
    for distance in (1, 2, 4):
        swapped = list(rows)
        for i in range(_SQUARE):
            if i & distance:
                continue
            a, b = rows[i], rows[i + distance]
            low = [j if not j & distance else _SQUARE + j - distance for j in range(_SQUARE)]
            high = [j + distance if not j & distance else _SQUARE + j for j in range(_SQUARE)]
            swapped[i], swapped[i + distance] = a.shuffle(low, b), a.shuffle(high, b)
        rows = swapped
    return rows
