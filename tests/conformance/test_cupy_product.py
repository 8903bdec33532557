"""Integer products by ``mma``, emulated: the emulated instructions, the index arithmetic, and sums to the last bit.

Scales are powers of two and sums small, so that float32 rounds nothing and outputs are equal in any order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch

from dvdq_kernels.registry import backends

if backends()["cupy"] is not None or not os.environ.get("DVDQ_CUPY_EMULATE"):
    pytest.skip("needs DVDQ_CUPY_EMULATE", allow_module_level=True)

from dvdq_kernels.activation_codes import pack_codes
from dvdq_kernels.backends.cupy import emulation, linear, mma, tuning
from dvdq_kernels.backends.cupy.code_sums import code_sums
from dvdq_kernels.backends.cupy.launch import shared_memory
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_kernels.backends.cupy.tuning import Config, Task
from dvdq_reference.oracle import packing
from dvdq_reference.oracle.inputs import Ints
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError

LANES = range(32)


def run(text: str, *arguments: object, file: str = "machine.cuh", shared: int = 0, **constants: int) -> None:
    """One warp."""
    source = translation_unit(file, constants) + "\nKERNEL(32, 1) probe" + text
    emulation.run("probe", source, arguments, 1, 32, shared)


def words(values: Ints, bits: int) -> torch.Tensor:
    """Signed elements ``[..., n]`` as 32-bit words, the first lowest."""
    shifts = np.arange(values.shape[-1]) * bits
    return torch.from_numpy(((values & (1 << bits) - 1) << shifts).sum(axis=-1).astype(np.uint32).view(np.int32))


def fragments(bits: int, rng: np.random.Generator, draw: range) -> tuple[Ints, Ints, torch.Tensor, torch.Tensor]:
    """A ``[16, K]``, B ``[8, K]``, and the registers of each lane, by the tables of the PTX ISA, "Matrix Fragments"."""
    per, k = 32 // bits, 256 // bits
    a, b = (rng.integers(draw.start, draw.stop, (rows, k)) for rows in (16, 8))
    a_lanes, b_lanes = np.zeros((32, 4 * per), np.int64), np.zeros((32, 2 * per), np.int64)
    for lane in LANES:
        group, thread = lane // 4, lane % 4
        for i in range(4 * per):
            row = group if i < per or 2 * per <= i < 3 * per else group + 8
            a_lanes[lane, i] = a[row, thread * per + i % per + (k // 2 if i >= 2 * per else 0)]
        for i in range(2 * per):
            b_lanes[lane, i] = b[group, thread * per + i % per + (k // 2 if i >= per else 0)]
    return a, b, words(a_lanes.reshape(32, 4, per), bits), words(b_lanes.reshape(32, 2, per), bits)


def gathered(d: torch.Tensor) -> Ints:
    """D ``[16, 8]`` of the registers ``[32, 4]`` of each lane."""
    result = np.zeros((16, 8), np.int64)
    for lane, i in product(LANES, range(4)):
        result[lane // 4 + (8 if i >= 2 else 0), lane % 4 * 2 + i % 2] = d[lane, i]
    return result


MULTIPLY = """(const unsigned (*a)[4], const unsigned (*b)[2], {sum} (*out)[4]) {{
    const int lane = threadIdx.x;
    unsigned mine[4];
    {sum} d[4];
    for (int i = 0; i < 4; ++i) {{
        mine[i] = a[lane][i];
        d[i] = out[lane][i];
    }}
    {instruction}(d, mine, b[lane][0], b[lane][1]);
    for (int i = 0; i < 4; ++i) out[lane][i] = d[i];
}}"""


@pytest.mark.parametrize(("instruction", "bits"), [("mma_s8", 8), ("mma_s4", 4)])
def test_integer_fragments(instruction: str, bits: int) -> None:
    half = code_offset(bits)
    a, b, a_words, b_words = fragments(bits, np.random.default_rng(1), range(-half, half))
    d = torch.arange(128, dtype=torch.int32).view(32, 4)
    before = gathered(d)
    run(MULTIPLY.format(sum="int", instruction=instruction), a_words, b_words, d)
    np.testing.assert_array_equal(gathered(d), before + a @ b.T)


@pytest.mark.parametrize(("instruction", "dtype"), [("mma_bf16", torch.bfloat16), ("mma_f16", torch.float16)])
def test_float_fragments(instruction: str, dtype: torch.dtype) -> None:
    a, b, a_words, b_words = fragments(16, np.random.default_rng(2), range(-8, 8))
    d = torch.zeros(32, 4)
    given = ((w.view(torch.int16).to(dtype).view(torch.int32)) for w in (a_words, b_words))
    run(MULTIPLY.format(sum="float", instruction=instruction), *given, d)
    np.testing.assert_array_equal(gathered(d), a @ b.T)


@pytest.mark.parametrize("transposed", [False, True])
def test_loaded_matrices(transposed: bool) -> None:
    """Register i of a lane is of matrix i the row lane / 4, columns lane % 4 · 2 and + 1, or those of its transpose."""
    matrices = torch.arange(4 * 64, dtype=torch.int16).view(4, 8, 8)
    out = torch.zeros((32, 4), dtype=torch.int32)
    name = "load_matrices_transposed" if transposed else "load_matrices"
    text = f"""(const Words4* rows, unsigned (*out)[4]) {{
        Words4* const shared = reinterpret_cast<Words4*>(shared_memory());
        shared[threadIdx.x] = rows[threadIdx.x];
        __syncwarp();
        unsigned r[4];
        {name}(r, shared + threadIdx.x);
        for (int i = 0; i < 4; ++i) out[threadIdx.x][i] = r[i];
    }}"""
    run(text, matrices, out, shared=512)
    found = out.view(torch.int16).view(32, 4, 2)
    for lane, i, e in product(LANES, range(4), range(2)):
        row, column = lane // 4, lane % 4 * 2 + e
        assert found[lane, i, e] == matrices[i, *((column, row) if transposed else (row, column))]


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("row_bytes", [16, 32, 64, 128, 256, 512])
def test_a_tile_in_shared_memory(row_bytes: int, turn: int) -> None:
    """Every 16 bytes have their own place, and what a warp reads at once lies on different banks."""
    rows, chunks = 64, row_bytes // 16
    places = torch.zeros((rows, chunks), dtype=torch.int32)
    text = """(int* out) {
        if (threadIdx.x == 0)
            for (int row = 0; row < ROWS; ++row)
                for (int chunk = 0; chunk < CHUNKS; ++chunk) *out++ = place<16 * CHUNKS, TURN>(row, chunk);
    }"""
    run(text, places, file="layouts.cuh", ROWS=rows, CHUNKS=chunks, TURN=turn)
    assert sorted(places.flatten().tolist()) == list(range(0, rows * row_bytes, 16))
    if turn == 1:  # ldmatrix: 8 rows of 16 bytes
        at_once = [places[row : row + 8, chunk] for row in range(0, rows, 8) for chunk in range(chunks)]
    elif chunks > 1:  # half a warp: 4 rows of 4 lanes with 8 bytes each
        at_once = [places[row : row + 4, i : i + 2] for row in range(0, rows, 4) for i in range(0, chunks, 2)]
    else:
        return
    for found in at_once:
        assert len(set((found.flatten() // 16 % 8).tolist())) == 8


@pytest.mark.parametrize(("down", "across"), [(1, 1), (3, 5), (8, 2), (21, 4)])
def test_every_tile_is_one_blocks(down: int, across: int) -> None:
    found = torch.zeros((down * across, 2), dtype=torch.int64)
    text = """(long long* out) {
        for (int i = threadIdx.x; i < DOWN * ACROSS; i += 32) {
            const Position at = tile_of<8>(i, DOWN, ACROSS);
            out[2 * i] = at.row;
            out[2 * i + 1] = at.column;
        }
    }"""
    run(text, found, file="layouts.cuh", DOWN=down, ACROSS=across)
    assert sorted(map(tuple, found.tolist())) == list(product(range(down), range(across)))
    band = found[: 8 * across, 0]
    assert band.max() < 8, "8 rows of tiles come first"


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_nibbles_are_decoded(bits: int) -> None:
    q = np.random.default_rng(3).integers(0, 2**bits, (32, 8))
    out = torch.zeros((32, 3), dtype=torch.int32)
    text = """(const unsigned* codes, unsigned (*out)[3]) {
        out[threadIdx.x][0] = centred_nibbles(codes[threadIdx.x]);
        decode_nibbles(codes[threadIdx.x], out[threadIdx.x][1], out[threadIdx.x][2]);
    }"""
    run(text, words(q, 4), out, file="codes.cuh", OFFSET=code_offset(bits))
    u = q - code_offset(bits)
    expected = torch.stack((words(u, 4), words(16 * u[:, 0::2], 8), words(16 * u[:, 1::2], 8)), dim=1)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_bytes_are_centred(bits: int) -> None:
    q = np.random.default_rng(3).integers(0, 2**bits, (32, 4))
    q[0] = 0, 2**bits - 1, 0, 2**bits - 1
    out = torch.zeros(32, dtype=torch.int32)
    text = "(const unsigned* codes, unsigned* out) { out[threadIdx.x] = centred_bytes(codes[threadIdx.x]); }"
    run(text, words(q, 8), out, file="codes.cuh", OFFSET=code_offset(bits))
    assert torch.equal(out, words(q - code_offset(bits), 8))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("tokens", "parts", "width"), [(3, 5, 32), (40, 2, 192), (1, 1, 2048)])
def test_code_sums(tokens: int, parts: int, width: int, packed: bool) -> None:
    half = 8 if packed else 128
    v = torch.from_numpy(np.random.default_rng(4).integers(-half, half, (tokens, parts * width))).to(torch.int8)
    v[0] = -half
    found = code_sums(pack_codes(v) if packed else v, parts)
    assert torch.equal(found, v.view(tokens, parts, width).sum(dim=-1).float())


@dataclass(frozen=True)
class Case:
    """A linear: W4A8 with one scale a row and a token, and what is unlike that."""

    tokens: int = 5
    out_features: int = 24
    in_features: int = 256
    blocks: int = 1
    groups: int = 1
    x_bits: int = 8
    bits: int = 4
    packed: bool = False
    zero: bool = True
    bias: torch.dtype | None = torch.bfloat16
    dtype: torch.dtype = torch.float32

    def check(self) -> None:
        """The emulated kernels' output is that of sums in int64."""
        rng = np.random.default_rng(5)
        half, offset = code_offset(self.x_bits), code_offset(self.bits)
        v = rng.integers(-half, half, (self.tokens, self.in_features))
        q = rng.integers(0, 2 * offset, (self.out_features, self.in_features))
        s = np.exp2(rng.integers(-3, 0, (self.tokens, self.blocks)))
        d = np.exp2(rng.integers(-3, 0, (self.out_features, self.groups)))
        z = rng.integers(0, 2 * offset, d.shape) if self.zero else np.full(d.shape, offset)
        bias = rng.integers(-8, 8, self.out_features)
        scaled = (v.reshape(*s.shape, -1) * s[:, :, None]).reshape(v.shape)
        weight = ((q.reshape(*d.shape, -1) - z[:, :, None]) * d[:, :, None]).reshape(q.shape)
        expected = torch.from_numpy(scaled @ weight.T + (0 if self.bias is None else bias))
        assert expected.abs().max() < 2**18, "float32 has no room for the sums and their 6 bits of a fraction"
        codes = torch.from_numpy(v).to(torch.int8)
        found = linear.integer_linear(
            pack_codes(codes) if self.packed else codes,
            torch.from_numpy(s).float(),
            torch.from_numpy(scaled.sum(axis=1)).float(),
            torch.from_numpy(packing.pack(q, self.bits)),
            torch.from_numpy(d).float(),
            torch.from_numpy(z).to(torch.int16) if self.zero else None,
            None if self.bias is None else torch.from_numpy(bias).to(self.bias),
            self.x_bits,
            self.bits,
            self.dtype,
            False,
        )
        assert torch.equal(found, expected.float().to(self.dtype)), self


CASES = (
    Case(),
    Case(tokens=1, dtype=torch.float16),
    Case(tokens=70, out_features=41, dtype=torch.bfloat16),
    Case(bits=3, zero=False),
    Case(bits=8, in_features=128),
    Case(bits=6, blocks=2, groups=2, zero=False),
    Case(blocks=2, bias=None, dtype=torch.float64),
    Case(groups=2),
    Case(blocks=2, groups=8),
    Case(blocks=4, groups=2, tokens=70, dtype=torch.bfloat16),
    Case(x_bits=4, packed=True),
    Case(x_bits=4, packed=True, tokens=70, out_features=41, in_features=768),
    Case(x_bits=4, packed=True, bits=2),
    Case(x_bits=4, packed=True, blocks=2, bias=torch.float32),
    Case(x_bits=4, packed=True, blocks=2, groups=4, tokens=17),
    Case(x_bits=4, packed=True, blocks=4, groups=2, tokens=70, zero=False),
    # Parts that fill no step, and weights that are no nibbles.
    Case(x_bits=4, packed=True, blocks=16, groups=16),
    Case(x_bits=4, packed=True, bits=8),
    Case(in_features=96),
    Case(in_features=74),
    Case(in_features=77, bits=8),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_unpacked_first(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "unpack_from", lambda _: 1)
    case.check()


TILES = (
    Config(16, 16, 64, 1, 1, 2, 4),
    Config(32, 64, 64, 2, 1, 3, 4),
    Config(64, 32, 128, 1, 2, 2, 8),
    Config(64, 32, 256, 4, 2, 4, 16),
    Config(32, 64, 32, 2, 4, 6, 4),
)


KINDS = ((False, 8, 4), (False, 4, 8), (True, 4, 4))


@pytest.mark.parametrize(
    ("case", "config"),
    [
        (Case(50, 72, 1024, blocks=1 + i % 2, packed=packed, x_bits=x_bits, bits=bits), config)
        for i, ((packed, x_bits, bits), config) in enumerate(product(KINDS, TILES))
    ],
    ids=str,
)
def test_every_tile_gives_the_same(case: Case, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a product is divided, and in whichever order threads and copies come."""

    def choose(task: Task, _: torch.device) -> Config:
        fits = config if not task.decodes else replace(config, block_k=max(64, config.block_k))
        assert tuning.is_legal(fits, task, 90)
        return fits

    monkeypatch.setattr(mma, "choose", choose)
    for _ in range(3):
        case.check()


@pytest.mark.parametrize("blocks", [1, 2])
def test_operands_need_no_alignment(blocks: int) -> None:
    memory = torch.randint(-8, 8, (1 + 3 * 64,), generator=torch.Generator().manual_seed(6)).to(torch.int8)
    codes, qweight = memory[1:].view(3, 64), torch.full((1 + 8 * 32,), 0x99, dtype=torch.uint8)[1:].view(8, 32)
    ones = torch.ones(3, blocks), torch.zeros(3), qweight, torch.ones(8, 1)
    found = linear.integer_linear(codes, *ones, None, None, 4, 4, torch.float32, False)
    assert torch.equal(found, codes.sum(dim=1, dtype=torch.float32)[:, None].expand(3, 8))


def test_sums_that_int32_cannot_hold_are_refused() -> None:
    codes, qweight = torch.zeros((1, 2**17), dtype=torch.int8), torch.zeros((1, 2**17), dtype=torch.uint8)
    scales = torch.ones(1, 1), torch.zeros(1), qweight, torch.ones(1, 1)
    with pytest.raises(DvdqError, match="channels whose sum int32 can hold"):
        linear.integer_linear(codes, *scales, None, None, 8, 8, torch.float32, False)


@pytest.mark.parametrize("target", [80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("tokens", [1, 16, 64, 65, 4096, 200_000])
def test_there_is_a_rule_for_every_product(target: int, tokens: int) -> None:
    for width, parts, grouped, packed, decodes in product(
        (32, 64, 96, 128, 3072), (1, 3), (False, True), (False, True), (False, True)
    ):
        if (packed and decodes) or ((packed or decodes) and width % 64):
            continue
        task = Task(tokens, 1536, width, parts, grouped and parts > 1, packed, decodes)
        config = tuning.rule(task, target)
        assert tuning.is_legal(config, task, target)
        assert config.shared_memory(task) <= shared_memory(target)
        assert config in set(tuning.space(task, target)), "what is tuned over has the rule's tiles"
