"""Products by ``wgmma``, emulated or on a Hopper GPU: exact, whatever the order of threads, copies and products.

Scales are powers of two and sums small, so that every step is exact in float32 and outputs can be compared bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from conformance import probes

if not probes.HOPPER:
    pytest.skip("needs a Hopper GPU or DVDQ_CUPY_EMULATE=90", allow_module_level=True)

from dvdq_kernels.backends.cupy import launch, linear, wgmma
from dvdq_kernels.backends.cupy.product import Product
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_kernels.backends.cupy.tensor_map import tensor_map
from dvdq_reference.oracle import packing
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError

SEEDS = 20
everywhere = pytest.mark.parametrize("device", probes.HOPPER)
emulated = pytest.mark.skipif("cpu" not in probes.HOPPER, reason="asks what emulation does")


@dataclass(frozen=True)
class Case:
    tokens: int
    out_features: int
    in_features: int
    block: int | None = None
    group: int | None = None
    zero: bool = True
    bias: torch.dtype | None = torch.bfloat16
    dtype: torch.dtype = torch.float32
    bits: int = 4
    decodes: bool = False


def powers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.exp2(rng.integers(-7, -4, shape))


def product(case: Case, device: str = "cpu") -> tuple[Product, torch.Tensor]:
    """A product, and what it comes to by sums of int64."""
    rng = np.random.default_rng(0)
    offset = code_offset(case.bits)
    block, group = case.block or case.in_features, case.group or case.in_features
    width = min(block, group)
    parts = case.in_features // width
    v = rng.integers(-128, 128, (case.tokens, case.in_features))
    q = rng.integers(0, 2 * offset, (case.out_features, case.in_features))
    s = powers(rng, case.tokens, case.in_features // block)
    d = powers(rng, case.out_features, case.in_features // group)
    z = rng.integers(0, 2 * offset, d.shape) if case.zero else np.full(d.shape, offset)
    b = rng.integers(-8, 8, case.out_features) if case.bias else np.zeros(case.out_features)

    def of_parts(scales: np.ndarray) -> np.ndarray:
        return scales.repeat(parts // scales.shape[1], 1)

    code_sums = v.reshape(case.tokens, parts, width).sum(2)
    sums = np.stack([v[:, c : c + width] @ (q - offset)[:, c : c + width].T for c in range(0, case.in_features, width)])
    centred = sums - code_sums.T[:, :, None] * (of_parts(z) - offset).T[:, None]
    scaled = centred * of_parts(s).T[:, :, None] * of_parts(d).T[:, None]
    assert np.abs(scaled).sum(0).max() * 2**14 < 2**24
    weight = packing.pack(q, case.bits) if case.decodes else (q - offset).astype(np.int8)
    code_sum = code_sums if d.shape[1] > 1 else (code_sums * of_parts(s)).sum(1)
    operands = {
        "codes": torch.from_numpy(v.astype(np.int8)),
        "x_scale": torch.from_numpy(s).float(),
        "code_sum": torch.from_numpy(code_sum).float(),
        "weight": torch.from_numpy(weight),
        "scale": torch.from_numpy(d).float(),
        "zero": torch.from_numpy(z.astype(np.int16)) if case.zero else None,
        "bias": torch.from_numpy(b).to(case.bias) if case.bias else None,
        "out": torch.full((case.tokens, case.out_features), torch.nan, dtype=case.dtype),
    }
    there = {name: None if operand is None else operand.to(device) for name, operand in operands.items()}
    given = Product(**there, in_features=case.in_features, width=width, x_bits=8, bits=case.bits)
    return given, torch.from_numpy(scaled.sum(0) + b).to(torch.float32).to(case.dtype).to(device)


CASES = [
    Case(130, 264, 768),
    Case(300, 264, 1536, dtype=torch.bfloat16),
    Case(1, 24, 256, zero=False, bias=None, dtype=torch.float16),
    Case(65, 256, 272, bias=torch.float32, bits=8),
    Case(63, 263, 768, dtype=torch.bfloat16, decodes=True),
    Case(130, 264, 1536, zero=False, decodes=True),
    Case(130, 24, 96, bits=3, decodes=True),
    Case(130, 264, 768, block=128),
    Case(65, 264, 1536, block=256, dtype=torch.float16, decodes=True),
    Case(63, 256, 1344, block=64),
    Case(65, 264, 352, block=32, decodes=True),
    Case(130, 264, 768, group=128),
    Case(1, 24, 256, group=64, zero=False, dtype=torch.bfloat16, decodes=True),
    Case(65, 264, 768, block=256, group=128, bias=None, decodes=True),
    Case(65, 264, 1536, block=64, group=256),
]


CONFIGS = [wgmma.Config(block_n, cluster) for block_n in (64, 128, 256) for cluster in (1, 2)]
"""A GPU with many multiprocessors chooses narrow tiles for sizes as small as these; an emulated one, with two, wide."""


@pytest.mark.parametrize(
    ("device", "config"),
    [(device, config) for device in probes.HOPPER for config in ([None] if device == "cpu" else CONFIGS)],
    ids=str,
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_product_is_exact(
    device: str, config: wgmma.Config | None, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, expected = product(case, device)
    assert wgmma.takes(given)
    if config is not None:
        if config.block_n > 128 and given.parts > 1:
            pytest.skip("totals beside the sums leave no registers for tiles so wide")
        monkeypatch.setattr(wgmma, "choose", lambda _: config)
    for _ in range(3):
        given.out.fill_(torch.nan)
        wgmma.multiply(given, case.decodes)
        torch.testing.assert_close(given.out, expected, rtol=0, atol=0)


@emulated
def test_emulation_takes_wide_tiles_and_clusters() -> None:
    chosen = {wgmma.choose(product(case)[0]) for case in CASES}
    assert {wgmma.Config(256, 2), wgmma.Config(128, 2), wgmma.Config(64, 1)} <= chosen


@everywhere
def test_the_kernel_can_be_gone_around(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(linear.wgmma, "multiply", lambda *_: called.append("wgmma"))
    monkeypatch.setattr(linear.mma, "multiply", lambda *_: called.append("mma"))
    given, _ = product(Case(65, 24, 384), device)
    for value in ("1", "0"):
        monkeypatch.setenv(wgmma.SWITCH, value)
        linear._multiply(given)
    assert called == ["wgmma", "mma"]


@everywhere
def test_what_the_kernel_does_not_take_is_left_to_another(device: str) -> None:
    given, _ = product(Case(1, 24, 384), device)
    assert wgmma.takes(given)
    assert not wgmma.takes(replace(given, codes=given.codes.view(torch.uint8)))
    assert not wgmma.takes(replace(given, width=96))
    assert not wgmma.takes(product(Case(1, 24, 264), device)[0])
    assert not wgmma.takes(product(Case(1, 24, 272, decodes=True), device)[0])
    assert not wgmma.takes(replace(given, weight=given.weight.view(torch.uint8), bits=8))


ROW, PARTS, DECODED = Case(65, 256, 1536), Case(65, 256, 1536, block=128), Case(65, 256, 1536, decodes=True)
CLUSTER = Case(130, 256, 1536)
RACES = {
    "the producer waits for no empty stage": (ROW, "barrier_wait(memory.empty + ring.stage, ring.parity ^ 1);", ""),
    "consumers wait for no full stage": (ROW, "barrier_wait(memory.full + ring.stage, ring.parity);", ""),
    "a stage is given back while it is read": (ROW, "wgmma_wait<1>();", ""),
    "sums are read before they are there": (ROW, "wgmma_wait<0>();", ""),
    "a part is scaled before it is there": (PARTS, "wgmma_wait<1>();", ""),
    "a part's sums are the next one's": (PARTS, "multiply_part(odd,", "multiply_part(even,"),
    "decoded weights are not fenced": (DECODED, "fence_async();\n            named", "named"),
    "decoded weights are read by one warpgroup only": (DECODED, "named_barrier(1, CONSUMERS * WARPGROUP);", ""),
    "one block's consumers free both blocks' stage": (
        CLUSTER,
        "CLUSTER * CONSUMERS * WARPGROUP / 32",
        "CONSUMERS * WARPGROUP / 32",
    ),
    "two decoded steps": (DECODED, "DECODED = 3;", "DECODED = 2;"),
}


@emulated
@pytest.mark.parametrize(("case", "old", "new"), RACES.values(), ids=RACES.keys())
def test_a_race_shows(case: Case, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: str, constants: dict[str, object]) -> str:
        source = translation_unit(file, constants)
        assert old in source
        return source.replace(old, new)

    given, expected = product(case)
    monkeypatch.setattr(launch, "translation_unit", broken)
    for _ in range(SEEDS):
        try:
            wgmma.multiply(given, case.decodes)
        except DvdqError as error:
            assert error.where == "emulation"  # noqa: PT017 - wrong outputs show it as well
            return
        if not torch.equal(given.out, expected):
            return
    pytest.fail(f"{SEEDS} orders gave the right result")


BOX = """
KERNEL(128, 1) probe(TENSOR_MAP left, TENSOR_MAP right, int8* placed, int* out) {
    char* const a = shared_memory();
    char* const b = a + 64 * 128;
    uint64* const full = reinterpret_cast<uint64*>(b + 64 * 128);
    if (threadIdx.x == 0) {
        barrier_init(full, 1);
        barrier_expect(full, 2 * 64 * 128);
        load_box(a, left, 128, 3, full);
        load_box(b, right, 128, 0, full);
    }
    __syncthreads();
    barrier_wait(full, 0);
    for (int i = threadIdx.x; i < 64 * 128; i += 128) placed[i] = a[i];
    int sums[8][4];
    for (int i = 0; i < 4; ++i) wgmma(sums, operand(a) + 2 * i, operand(b) + 2 * i, i > 0);
    wgmma_commit();
    wgmma_wait<0>();
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    for (int j = 0; j < 8; ++j)
        for (int i = 0; i < 4; ++i) out[(row + i / 2 * 8) * 64 + 8 * j + column + i % 2] = sums[j][i];
}
"""


@everywhere
def test_a_box_lies_in_shared_memory_as_a_descriptor_reads_it(device: str) -> None:
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(rng.integers(-128, 128, (64, 208), dtype=np.int8)).to(device) for _ in range(2))
    placed, out = torch.zeros(64, 8, 16, dtype=torch.int8), torch.zeros(64, 64, dtype=torch.int32)
    given, _ = product(ROW)
    constants = {"BLOCK_M": 128, "BLOCK_N": 64, "CLUSTER": 1, "STAGES": 1, "DECODES": False, "DECODED": 0, "WIDTH": 128}
    source = translation_unit("product_wgmma.cu", constants | given.epilogue_constants()) + BOX
    maps = tensor_map(left, (64, 128), swizzled=True), tensor_map(right, (64, 128), swizzled=True)
    probes.run(source, (*maps, placed, out), device, threads=128, shared=2 * 64 * 128 + 8)
    a, b = np.zeros((2, 64, 128), np.int64)
    a[:61, :80], b[:, :80] = left.cpu().numpy()[3:, 128:], right.cpu().numpy()[:, 128:]
    chunks = a.reshape(64, 8, 16)
    for row in range(64):
        np.testing.assert_array_equal(placed[row], chunks[row, np.arange(8) ^ row % 8])
    np.testing.assert_array_equal(out, a @ b.T)
