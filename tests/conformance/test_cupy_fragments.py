"""The instructions of products, emulated or on a GPU, and where operands lie, against the tables of the PTX ISA."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from conformance import probes
from dvdq_kernels.registry import backends

if not probes.DEVICES:
    pytest.skip(f"cupy: {backends()['cupy']}", allow_module_level=True)

from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_reference.oracle.inputs import Ints
from dvdq_reference.spec.bits import code_offset

pytestmark = pytest.mark.parametrize("device", probes.DEVICES)
LANES = range(32)


def run(
    device: str, text: str, *arguments: object, file: str = "machine.cuh", shared: int = 0, **constants: int
) -> None:
    """One warp."""
    source = translation_unit(file, constants) + "\nKERNEL(32, 1) probe" + text
    probes.run(source, arguments, device, threads=32, shared=shared)


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
def test_integer_fragments(device: str, instruction: str, bits: int) -> None:
    half = code_offset(bits)
    a, b, a_words, b_words = fragments(bits, np.random.default_rng(1), range(-half, half))
    d = torch.arange(128, dtype=torch.int32).view(32, 4)
    before = gathered(d)
    run(device, MULTIPLY.format(sum="int", instruction=instruction), a_words, b_words, d)
    np.testing.assert_array_equal(gathered(d), before + a @ b.T)


@pytest.mark.parametrize(("instruction", "dtype"), [("mma_bf16", torch.bfloat16), ("mma_f16", torch.float16)])
def test_float_fragments(device: str, instruction: str, dtype: torch.dtype) -> None:
    a, b, a_words, b_words = fragments(16, np.random.default_rng(2), range(-8, 8))
    d = torch.zeros(32, 4)
    given = ((w.view(torch.int16).to(dtype).view(torch.int32)) for w in (a_words, b_words))
    run(device, MULTIPLY.format(sum="float", instruction=instruction), *given, d)
    np.testing.assert_array_equal(gathered(d), a @ b.T)


@pytest.mark.parametrize("transposed", [False, True])
def test_loaded_matrices(device: str, transposed: bool) -> None:
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
    run(device, text, matrices, out, shared=512)
    found = out.view(torch.int16).view(32, 4, 2)
    for lane, i, e in product(LANES, range(4), range(2)):
        row, column = lane // 4, lane % 4 * 2 + e
        assert found[lane, i, e] == matrices[i, *((column, row) if transposed else (row, column))]


ROWS, ROW_BYTES = 64, (16, 32, 64, 128, 256, 512)


@pytest.mark.parametrize("turn", [1, 2])
def test_tiles_in_shared_memory(device: str, turn: int) -> None:
    """Every 16 bytes have their own place, and what a warp reads at once lies on different banks."""
    out = torch.zeros(ROWS * sum(ROW_BYTES) // 16, dtype=torch.int32)
    loop = """
        for (int row = 0; row < ROWS; ++row)
            for (int chunk = 0; chunk < {0} / 16; ++chunk) *out++ = place<{0}, TURN>(row, chunk);"""
    loops = "".join(loop.format(row_bytes) for row_bytes in ROW_BYTES)
    run(device, f"(int* out) {{ if (threadIdx.x == 0) {{ {loops} }} }}", out, file="layouts.cuh", ROWS=ROWS, TURN=turn)
    for table in out.split([ROWS * row_bytes // 16 for row_bytes in ROW_BYTES]):
        places = table.view(ROWS, -1)
        chunks = places.shape[1]
        assert sorted(places.flatten().tolist()) == list(range(0, 16 * places.numel(), 16))
        if turn == 1:  # ldmatrix: 8 rows of 16 bytes
            at_once = [places[row : row + 8, chunk] for row in range(0, ROWS, 8) for chunk in range(chunks)]
        else:  # half a warp: 4 rows of 4 lanes with 8 bytes each; rows of 16 bytes have no such lanes
            at_once = [places[row : row + 4, i : i + 2] for row in range(0, ROWS, 4) for i in range(0, chunks - 1, 2)]
        for found in at_once:
            assert len(set((found.flatten() // 16 % 8).tolist())) == 8


@pytest.mark.parametrize(("down", "across"), [(1, 1), (3, 5), (8, 2), (21, 4)])
def test_every_tile_is_one_blocks(device: str, down: int, across: int) -> None:
    found = torch.zeros((down * across, 2), dtype=torch.int64)
    text = """(long long* out, int down, int across) {
        for (int i = threadIdx.x; i < down * across; i += 32) {
            const Position at = tile_of<8>(i, down, across);
            out[2 * i] = at.row;
            out[2 * i + 1] = at.column;
        }
    }"""
    run(device, text, found, np.int32(down), np.int32(across), file="layouts.cuh")
    assert sorted(map(tuple, found.tolist())) == list(product(range(down), range(across)))
    assert found[: 8 * across, 0].max() < 8, "8 rows of tiles come first"


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_nibbles_are_decoded(device: str, bits: int) -> None:
    q = np.random.default_rng(3).integers(0, 2**bits, (32, 8))
    out = torch.zeros((32, 3), dtype=torch.int32)
    text = """(const unsigned* codes, unsigned (*out)[3]) {
        out[threadIdx.x][0] = centred_nibbles(codes[threadIdx.x]);
        decode_nibbles(codes[threadIdx.x], out[threadIdx.x][1], out[threadIdx.x][2]);
    }"""
    run(device, text, words(q, 4), out, file="codes.cuh", OFFSET=code_offset(bits))
    u = q - code_offset(bits)
    expected = torch.stack((words(u, 4), words(16 * u[:, 0::2], 8), words(16 * u[:, 1::2], 8)), dim=1)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
def test_bytes_are_centred(device: str, bits: int) -> None:
    q = np.random.default_rng(3).integers(0, 2**bits, (32, 4))
    q[0] = 0, 2**bits - 1, 0, 2**bits - 1
    out = torch.zeros(32, dtype=torch.int32)
    text = "(const unsigned* codes, unsigned* out) { out[threadIdx.x] = centred_bytes(codes[threadIdx.x]); }"
    run(device, text, words(q, 8), out, file="codes.cuh", OFFSET=code_offset(bits))
    assert torch.equal(out, words(q - code_offset(bits), 8))
