"""Integer products by ``mma``, emulated, against sums in int64.

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
from dvdq_kernels.backends.cupy import linear, mma, tuning
from dvdq_kernels.backends.cupy.code_sums import code_sums
from dvdq_kernels.backends.cupy.tuning import Config, Task
from dvdq_kernels.gpu import recording, shared_memory
from dvdq_reference.oracle import packing
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError


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
    Case(blocks=2, groups=8),
    Case(blocks=4, groups=2, tokens=70, dtype=torch.bfloat16),
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


def test_unpacked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "unpack_from", lambda _: 1)
    Case(tokens=70, out_features=41, dtype=torch.bfloat16).check()


TILES = (
    Config(16, 16, 64, 1, 1, 2, 4),
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
    found = linear.integer_linear(codes, *ones, None, None, 4, 4, torch.float32)
    assert torch.equal(found, codes.sum(dim=1, dtype=torch.float32)[:, None].expand(3, 8))


@pytest.mark.parametrize(("x_bits", "bits", "edge"), [(8, 4, 256), (4, 4, 4096), (8, 8, 256), (4, 8, 4096)])
def test_sums_at_the_edge_of_what_becomes_a_float_by_its_bits(x_bits: int, bits: int, edge: int) -> None:
    """That is 2^22, of which decoded nibbles fill 16 times what they are; the widths are one step below and above."""
    half, offset = code_offset(x_bits), code_offset(bits)
    for width in (edge - 64, edge + 64):
        codes = torch.full((1, 2 * width), -half, dtype=torch.int8)
        qweight = torch.from_numpy(packing.pack(np.zeros((1, 2 * width), np.int64), bits))
        given = codes, torch.ones(1, 2), torch.zeros(1), qweight, torch.ones(1, 1)
        rest = None, None, x_bits, bits, torch.float32
        with recording(89) as record:
            linear.integer_linear(*(tensor.to("meta") for tensor in given), *rest)
        assert record.launches[-1].constants["BIASED"] == (width < edge)
        assert linear.integer_linear(*given, *rest).item() == 2 * width * half * offset


def test_sums_that_int32_cannot_hold_are_refused() -> None:
    codes, qweight = torch.zeros((1, 2**17), dtype=torch.int8), torch.zeros((1, 2**17), dtype=torch.uint8)
    scales = torch.ones(1, 1), torch.zeros(1), qweight, torch.ones(1, 1)
    with pytest.raises(DvdqError, match="channels whose sum int32 can hold"):
        linear.integer_linear(codes, *scales, None, None, 8, 8, torch.float32)


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
        assert all(getattr(config, name) in values for name, values in tuning.SPACE.items()), "not tuned over"
