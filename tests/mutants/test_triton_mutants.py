"""Copies of the Triton backend with one line broken: conformance, in Triton's interpreter, refuses each."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from conformance import checks
from conformance.cases import LinearCase

from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule
from mutants.copies import Break, ask

SIGNS = Rotation("full", seed=3)
FLOAT = torch.float32
BLOCKWISE = LinearCase(WeightRule(4, "minmax"), ActivationRule(4, 64), None, 256, 17, FLOAT)
GROUPED = LinearCase(WeightRule(4, "minmax", 64), ActivationRule(8), None, 256, 17, FLOAT)
MANY = LinearCase(WeightRule(4, "minmax"), ActivationRule(8), None, 256, 300, FLOAT)
FULL = LinearCase(WeightRule(4, "minmax", 64), None, None, 256, 3, FLOAT)
CHECKS = {
    "blockwise linear": partial(checks.check_linear, case=BLOCKWISE),
    "grouped linear": partial(checks.check_linear, case=GROUPED),
    "many tokens": partial(checks.check_linear, case=MANY),
    "weight-only linear": partial(checks.check_linear, case=FULL),
    "integer sums": checks.check_integer_sums,
    "views": checks.check_views,
    "weight ties": checks.check_weight_ties,
    "activation ties": checks.check_activation_ties,
    "activation": partial(
        checks.check_activation, rule=ActivationRule(4, 128, "gaussian"), rotation=SIGNS, dtype=FLOAT
    ),
    "per token": partial(checks.check_activation, rule=ActivationRule(8), rotation=SIGNS, dtype=FLOAT),
    "rotation": partial(checks.check_rotation, rotation=SIGNS, in_features=768),
    "regular rotation": partial(checks.check_rotation, rotation=Rotation("regular"), in_features=768),
    "decoding": partial(checks.check_dequantize, rule=WeightRule(4, "minmax", 64), in_features=256),
    "min-max": partial(checks.check_weight, rule=WeightRule(4, "minmax", 64), in_features=256, dtype=FLOAT),
    "BGR": partial(checks.check_weight, rule=WeightRule(4, "bgr"), in_features=256, dtype=FLOAT),
    "one start": partial(checks.check_weight, rule=WeightRule(4, "bgr", num_bounds=1), in_features=256, dtype=FLOAT),
    "to the end": partial(
        checks.check_weight, rule=WeightRule(4, "bgr", 128, tolerance=0.0), in_features=256, dtype=FLOAT
    ),
}
"""What is asked of a copy, by name."""

BREAKS = (
    Break("products.py", "tl.dot(even, ((weight << 4)", "tl.dot(odd, ((weight << 4)", "blockwise linear"),
    Break("products.py", "(weight & 240)", "(weight & 112)", "blockwise linear"),
    Break("products.py", "c // (PARTS // BLOCKS)", "0 * (PARTS // BLOCKS)", "blockwise linear"),
    Break("products.py", "group = c // (PARTS // GROUPS)", "group = 0", "grouped linear"),
    Break("products.py", "part -= r[:, None] * z[None, :]", "part += 0", "grouped linear"),
    Break(
        "products.py", "sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)\n    if", "sums += 0\n    if", "blockwise linear"
    ),
    Break("products.py", "total -= tl.load(r_ptrs", "total += tl.load(r_ptrs", "blockwise linear"),
    Break("products.py", "total += tl.load(bias_ptr", "total += 0 * tl.load(bias_ptr", "blockwise linear"),
    Break("products.py", "mask=(m < tokens - first_m)", "mask=(m < tokens - first_m - 1)", "blockwise linear"),
    Break("products.py", "(c * WIDTH + start + k)", "(start + k)", "grouped linear"),
    Break("unpack.py", "(stored >> 4) - OFFSET", "(stored >> 4) - 7", "many tokens"),
    Break("weight_only.py", "_centred(codes & 240, z, 4", "_centred(codes & 240, z + 1, 4", "weight-only linear"),
    Break("weight_only.py", "tl.load(scale_ptr + grid + group", "tl.load(scale_ptr + grid", "weight-only linear"),
    Break("encoding.py", "even | (odd << 4)", "odd | (even << 4)", "min-max"),
    Break("encoding.py", "rint(weight / scale)", "tl.floor(weight / scale)", "min-max"),
    Break("encoding.py", "codes & 15, codes >> 4", "codes >> 4, codes & 15", "decoding"),
    Break("grids.py", "-rint(low / scale)", "-tl.floor(low / scale)", "min-max"),
    Break("bgr.py", "for i in range(BOUNDS)", "for i in range(1)", "BGR"),
    Break("bgr.py", '"BOUNDS": num_bounds', '"BOUNDS": 6', "one start"),
    Break("bgr.py", '"TOLERANCE": tolerance', '"TOLERANCE": 1e-3', "to the end"),
    Break("transform.py", "partner - pieces[i] if", "pieces[i] - partner if", "rotation"),
    Break("transform.py", "sums = _product(middle, factor, FROM_LEFT, sums)", "pass", "rotation"),
    Break("tiles.py", "sylvester(outer // core)).T)", "sylvester(outer // core)))", "rotation"),
    Break(
        "tiles.py",
        "rotation_signs(in_features, kind, seed)",
        "rotation_signs(in_features, 'block', seed)",
        "regular rotation",
    ),
    Break("transform.py", "if signs_ptr is not None:", "if signs_ptr is None:", "regular rotation"),
)


def test_a_copy_with_nothing_broken_passes(tmp_path: Path) -> None:
    ask("triton", tmp_path, CHECKS)


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_a_broken_copy_fails(broken: Break, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        ask("triton", tmp_path, CHECKS, broken)
