"""Integer products by ``mma``, and on Hopper GPUs of many tokens by ``wgmma``: exact, however they are divided."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from conformance.exact import WIDE, Linear
from conformance.probes import DEVICES
from dvdq_kernels.registry import backends

if not DEVICES:
    pytest.skip(f"cupy: {backends()['cupy']}", allow_module_level=True)

from dvdq_kernels.activation_codes import pack_codes
from dvdq_kernels.backends.cupy import linear, mma, product_tiles
from dvdq_kernels.backends.cupy.code_sums import code_sums
from dvdq_kernels.backends.cupy.product_tiles import Config, Task
from dvdq_kernels.backends.cupy.target import target_of
from dvdq_kernels.gpu import recording, shared_memory
from dvdq_reference.oracle import packing
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError

everywhere = pytest.mark.parametrize("device", DEVICES)


@everywhere
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("tokens", "parts", "width"), [(3, 5, 32), (40, 2, 192), (1, 1, 2048)])
def test_code_sums(device: str, tokens: int, parts: int, width: int, packed: bool) -> None:
    half = 8 if packed else 128
    v = torch.from_numpy(np.random.default_rng(4).integers(-half, half, (tokens, parts * width))).to(torch.int8)
    v[0] = -half
    v = v.to(device)
    found = code_sums(pack_codes(v) if packed else v, parts)
    assert torch.equal(found, v.view(tokens, parts, width).sum(dim=-1).float())


CASES = (
    Linear(),
    Linear(tokens=1, dtype=torch.float16),
    Linear(tokens=70, out_features=41, dtype=torch.bfloat16),
    Linear(bits=3, zero=False),
    Linear(bits=8, in_features=128),
    Linear(bits=6, blocks=2, groups=2, zero=False),
    Linear(blocks=2, bias=None, dtype=torch.float64),
    Linear(blocks=2, groups=8),
    Linear(blocks=4, groups=2, tokens=70, dtype=torch.bfloat16),
    Linear(x_bits=4, packed=True, tokens=70, out_features=41, in_features=768),
    Linear(x_bits=4, packed=True, bits=2),
    Linear(x_bits=4, packed=True, blocks=2, bias=torch.float32),
    Linear(x_bits=4, packed=True, blocks=2, groups=4, tokens=17),
    Linear(x_bits=4, packed=True, blocks=4, groups=2, tokens=70, zero=False),
    # Parts that fill no step, and weights that are no nibbles.
    Linear(x_bits=4, packed=True, blocks=16, groups=16),
    Linear(x_bits=4, packed=True, bits=8),
    Linear(in_features=96),
    Linear(in_features=74),
    Linear(in_features=77, bits=8),
)


@everywhere
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(device: str, case: Linear) -> None:
    case.check("cupy", device)


@pytest.mark.parametrize("device", [device for device in DEVICES if device == "cuda"])
@pytest.mark.parametrize("case", WIDE.values(), ids=WIDE.keys())
def test_exact_at_the_width_of_a_gpu(device: str, case: Linear) -> None:
    """Twice: a race need not show at once."""
    for seed in range(2):
        case.check("cupy", device, seed)


@everywhere
def test_unpacked_first(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "unpack_from", lambda _: 1)
    Linear(tokens=70, out_features=41, dtype=torch.bfloat16).check("cupy", device)


TILES = (
    Config(16, 16, 64, 1, 1, 2, 4),
    Config(64, 32, 256, 4, 2, 4, 16),
    Config(32, 64, 32, 2, 4, 6, 4),
)
KINDS = ((False, 8, 4), (False, 4, 8), (True, 4, 4))


@everywhere
@pytest.mark.parametrize(
    ("case", "config"),
    [
        (Linear(50, 72, 1024, blocks=1 + i % 2, packed=packed, x_bits=x_bits, bits=bits), config)
        for i, ((packed, x_bits, bits), config) in enumerate(product(KINDS, TILES))
    ],
    ids=str,
)
def test_every_tile_gives_the_same(device: str, case: Linear, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a product is divided, and in whichever order threads and copies come."""

    def choose(task: Task, _: torch.device) -> Config:
        fits = config if not task.decodes else replace(config, block_k=max(64, config.block_k))
        assert product_tiles.is_legal(fits, task, 90 if device == "cpu" else target_of(torch.device(device)))
        return fits

    monkeypatch.setattr(mma, "choose", choose)
    for _ in range(3):
        case.check("cupy", device)


@everywhere
@pytest.mark.parametrize("blocks", [1, 2])
def test_operands_need_no_alignment(device: str, blocks: int) -> None:
    memory = torch.randint(-8, 8, (1 + 3 * 64,), generator=torch.Generator().manual_seed(6)).to(torch.int8)
    nibbles = torch.full((1 + 8 * 32,), 0x99, dtype=torch.uint8)
    codes, qweight = memory.to(device)[1:].view(3, 64), nibbles.to(device)[1:].view(8, 32)
    scales = (
        torch.full(shape, value, device=device) for shape, value in (((3, blocks), 1.0), ((3,), 0.0), ((8, 1), 1.0))
    )
    x_scale, token_sum, scale = scales
    ones = x_scale, token_sum, qweight, scale
    found = linear.integer_linear(codes, *ones, None, None, 4, 4, torch.float32)
    assert torch.equal(found, codes.sum(dim=1, dtype=torch.float32)[:, None].expand(3, 8))


@everywhere
@pytest.mark.parametrize(("x_bits", "bits", "edge"), [(8, 4, 256), (4, 4, 4096), (8, 8, 256), (4, 8, 4096)])
def test_sums_at_the_edge_of_what_becomes_a_float_by_its_bits(device: str, x_bits: int, bits: int, edge: int) -> None:
    """That is 2^22, of which decoded nibbles fill 16 times what they are; the widths are one step below and above."""
    half, offset = code_offset(x_bits), code_offset(bits)
    for width in (edge - 64, edge + 64):
        codes = torch.full((1, 2 * width), -half, dtype=torch.int8)
        qweight = torch.from_numpy(packing.pack(np.zeros((1, 2 * width), np.int64), bits))
        operands = codes, torch.ones(1, 2), torch.zeros(1), qweight, torch.ones(1, 1)
        given = tuple(operand.to(device) for operand in operands)
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
        config = product_tiles.rule(task, target)
        assert product_tiles.is_legal(config, task, target)
        assert config.shared_memory(task) <= shared_memory(target)
