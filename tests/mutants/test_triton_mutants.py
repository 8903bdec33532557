"""Copies of the Triton backend with one line broken: conformance, in Triton's interpreter, refuses each."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from mutants.copies import Break, ask
from mutants.gpu_checks import CHECKS

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
    Break("weight_only.py", "* scale.double()", "* scale.double()[:, :1]", "weight-only linear of float64"),
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
    Break("quantization.py", "(key >> 1) | (key << 31)", "(key >> 1)", "signed scales"),
    Break(
        "rotated.py",
        "scale_of(value_of(largest, RULE) * FACTOR",
        "scale_of(tl.abs(value_of(largest, RULE)) * FACTOR",
        "signed",
    ),
    Break("transform.py", "if signs_ptr is not None:", "if signs_ptr is None:", "regular rotation"),
)


def test_a_copy_with_nothing_broken_passes(tmp_path: Path) -> None:
    ask("triton", tmp_path, CHECKS)


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_a_broken_copy_fails(broken: Break, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        ask("triton", tmp_path, CHECKS, broken)
