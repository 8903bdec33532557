"""Copies of the CUDA kernels with one line broken: conformance, on an emulated GPU, refuses each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from conformance import checks
from conformance.cases import LinearCase

from dvdq_kernels.backends.cupy.target import emulated_capability
from dvdq_kernels.registry import backends
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule
from mutants.copies import Break, ask
from mutants.gpu_checks import CHECKS, FLOAT, SIGNS

if emulated_capability() is None or backends()["cupy"] is not None:
    pytest.skip("needs DVDQ_CUPY_EMULATE and a C++ compiler", allow_module_level=True)

MANY_GROUPS = LinearCase(WeightRule(4, "minmax", 256), ActivationRule(8), None, 768, 300, FLOAT)
MANY_BLOCKS = LinearCase(WeightRule(4, "minmax"), ActivationRule(8, 128), None, 768, 300, FLOAT)
BYTES = LinearCase(WeightRule(8, "minmax"), ActivationRule(8), None, 256, 3, FLOAT)
SIXTEEN_BITS = partial(checks.check_activation, rotation=SIGNS, dtype=torch.bfloat16)
ASKED = CHECKS | {
    "many tokens in blocks": partial(checks.check_linear, case=MANY_BLOCKS),
    "many tokens in groups": partial(checks.check_linear, case=MANY_GROUPS),
    "bytes": partial(checks.check_linear, case=BYTES),
    "packed": checks.check_packed_activation,
    "16 bits": partial(SIXTEEN_BITS, rule=ActivationRule(8, 64)),
    "narrow blocks": partial(SIXTEEN_BITS, rule=ActivationRule(8, 32)),
    "block rotation": partial(checks.check_rotation, rotation=Rotation("block"), in_features=1536),
}

ANYWHERE = (
    Break("cuda/epilogue.cuh", "GROUPED ? c / of.block_parts : c;", "0;", "blockwise linear"),
    Break("cuda/epilogue.cuh", "const int group = c / of.group_parts;", "const int group = 0;", "grouped linear"),
    Break("cuda/epilogue.cuh", "? -at_row(of.code_sum", "? at_row(of.code_sum", "grouped linear"),
    Break("cuda/outputs.cuh", "? -__ldg(of.code_sum", "? __ldg(of.code_sum", "many tokens"),
    Break("cuda/outputs.cuh", "? to_float(unchanged(bias + column))", "? 0.0f", "many tokens"),
    Break("cuda/outputs.cuh", "8 * half >= of.tokens", "8 * half >= of.tokens - 1", "many tokens"),
    Break("cuda/outputs.cuh", "kept = odd ? high : low", "kept = odd ? low : high", "many tokens"),
    Break("cuda/codes.cuh", "codes + (128 - OFFSET)", "codes + (129 - OFFSET)", "bytes"),
    Break("cuda/product_mma.cu", "copy_async_wait<STAGES - 2>();", "", "blockwise linear"),
    Break("cuda/product_mma.cu", "        __syncthreads();\n", "", "blockwise linear"),
    Break("cuda/codes.cuh", "codes << 4 & 0xF0F0F0F0u", "codes << 4 & 0x70F0F0F0u", "grouped linear"),
    Break("cuda/code_sums.cu", "mask = LANES / 2", "mask = LANES / 4", "grouped linear"),
    Break("cuda/transform.cuh", "rows.at(half, i | bit) = a - b;", "rows.at(half, i | bit) = b - a;", "rotation"),
    Break("cuda/transform.cuh", "rows.at(half, i) = kept + taken;", "rows.at(half, i) = kept - taken;", "rotation"),
    Break("cuda/transform.cuh", "rest[i] = rest[i] - ", "rest[i] = 0 * ", "rotation"),
    Break("cuda/transform.cuh", "(both ^ both >> 1) << 31", "both << 31", "rotation"),
    Break("cuda/transform.cuh", "        copy_async_wait<AHEAD - 1>();\n", "", "16 bits"),
    Break("cuda/transform.cuh", "(DENSE ? k : static_cast", "(true ? k : static_cast", "block rotation"),
    Break("cuda/rotate_quantize.cu", "row / ROWS * ABREAST + b", "row / ROWS * ABREAST", "narrow blocks"),
    Break("cuda/rotate_quantize.cu", "+ 4 * RUN * j) / PER_BYTE", "+ 2 * RUN * j) / PER_BYTE", "narrow blocks"),
    Break("cuda/blocks.cuh", "scale[b] * static_cast<float>(sum[b])", "scale[b]", "per token"),
    Break("cuda/blocks.cuh", "stored >> 1 | stored << 31", "stored >> 1", "signed scales"),
    Break("cuda/rotate_quantize.cu", "SIGNED_SCALES ? flipped(x, sign(k)) : x", "x", "signed"),
    Break("cuda/quantize.cu", "return q + WHOLE;", "return q + 0.5f + WHOLE;", "activation ties"),
    Break("cuda/encode.cu", "<< (i % PER_BYTE * 4)", "<< (4 - i % PER_BYTE * 4)", "min-max"),
    Break(
        "cuda/encode.cu",
        "nearest(static_cast<double>(exact(value[i]))",
        "floor(static_cast<double>(exact(value[i]))",
        "min-max",
    ),
    Break("cuda/bgr.cu", "if (!(error < least_error)) continue;", "if (i > 0) continue;", "BGR"),
    Break(
        "cuda/weight_only.cu",
        "part.scale[r] = __ldg(of.scale + grid);",
        "part.scale[r] = __ldg(of.scale + n);",
        "weight-only linear",
    ),
    Break("cuda/weight_only.cu", "    __syncthreads();\n", "", "weight-only linear"),
    Break("cuda/decode.cu", "& 15", "& 7", "decoding"),
)
PACKING = (
    Break("cuda/blocks.cuh", "(low & 0x0F0F0F0F) | (high << 4", "(high & 0x0F0F0F0F) | (low << 4", "packed"),
    Break("cuda/codes.cuh", "0x11111111u ^ 0x88888888u", "0x11111111u ^ 0x08888888u", "packed"),
)
INT8 = (Break("cuda/product_mma.cu", "if (!ONE_STEP) set(sums, NOTHING);", "", "many tokens in groups"),)
HOPPER = (
    Break("cuda/pipeline.cuh", "barrier_wait(memory.full + ring.stage, ring.parity);", "", "many tokens"),
    Break("cuda/pipeline.cuh", "step * BLOCK_K, row", "step * BLOCK_K, row + 1", "many tokens"),
    Break(
        "cuda/product_wgmma.cu", "part % SHARES * SHARE, false", "part % SHARES * SHARE, true", "many tokens in blocks"
    ),
)
BREAKS = (*ANYWHERE, *PACKING, *(HOPPER if emulated_capability() == 90 else INT8))


def test_a_copy_with_nothing_broken_passes(tmp_path: Path) -> None:
    ask("cupy", tmp_path, ASKED)


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_a_broken_copy_fails(broken: Break, tmp_path: Path) -> None:
    # What touches memory that is not its own, or waits for ever, is refused before a result is compared.
    with pytest.raises((AssertionError, DvdqError)):
        ask("cupy", tmp_path, ASKED, broken)
