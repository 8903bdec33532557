"""Copies of the Triton backend with one line broken: conformance, in Triton's interpreter, refuses each."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

if find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from conformance import checks
from conformance.cases import LinearCase

from dvdq_kernels.registry import Backend, operators, registered
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

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
    "ties": checks.check_ties,
    "activation": partial(
        checks.check_activation, rule=ActivationRule(4, 128, "gaussian"), rotation=SIGNS, dtype=FLOAT
    ),
    "per token": partial(checks.check_activation, rule=ActivationRule(8), rotation=SIGNS, dtype=FLOAT),
    "rotation": partial(checks.check_rotation, rotation=SIGNS, in_features=768),
    "decoding": partial(checks.check_dequantize, rule=WeightRule(4, "minmax", 64), in_features=256),
    "min-max": partial(checks.check_weight, rule=WeightRule(4, "minmax", 64), in_features=256, dtype=FLOAT),
    "BGR": partial(checks.check_weight, rule=WeightRule(4, "bgr"), in_features=256, dtype=FLOAT),
}
"""What is asked of a copy, by name."""

MUTANTS = [
    ("products.py", "tl.dot(even, ((weight << 4)", "tl.dot(odd, ((weight << 4)", "blockwise linear"),
    ("products.py", "(weight & 240)", "(weight & 112)", "blockwise linear"),
    ("products.py", "c // (PARTS // BLOCKS)", "0 * (PARTS // BLOCKS)", "blockwise linear"),
    ("products.py", "group = c // (PARTS // GROUPS)", "group = 0", "grouped linear"),
    ("products.py", "part -= r[:, None] * z[None, :]", "part += 0", "grouped linear"),
    ("products.py", "sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)\n    if", "sums += 0\n    if", "blockwise linear"),
    ("products.py", "total -= tl.load(r_ptrs", "total += tl.load(r_ptrs", "blockwise linear"),
    ("products.py", "total += tl.load(bias_ptr", "total += 0 * tl.load(bias_ptr", "blockwise linear"),
    ("products.py", "mask=(m < tokens - first_m)", "mask=(m < tokens - first_m - 1)", "blockwise linear"),
    ("products.py", "(c * WIDTH + start + k)", "(start + k)", "grouped linear"),
    ("unpack.py", "(stored >> 4) - OFFSET", "(stored >> 4) - 7", "many tokens"),
    ("weight_only.py", "_centred(codes & 240, z, 4", "_centred(codes & 240, z + 1, 4", "weight-only linear"),
    ("weight_only.py", "tl.load(scale_ptr + grid + group", "tl.load(scale_ptr + grid", "weight-only linear"),
    ("encoding.py", "even | (odd << 4)", "odd | (even << 4)", "min-max"),
    ("encoding.py", "rint(weight / scale)", "tl.floor(weight / scale)", "min-max"),
    ("encoding.py", "codes & 15, codes >> 4", "codes >> 4, codes & 15", "decoding"),
    ("grids.py", "-rint(low / scale)", "-tl.floor(low / scale)", "min-max"),
    ("bgr.py", "for i in range(BOUNDS)", "for i in range(1)", "BGR"),
    ("transform.py", "partner - pieces[i] if", "pieces[i] - partner if", "rotation"),
    ("transform.py", "sums = _product(middle, factor, FROM_LEFT, sums)", "pass", "rotation"),
    ("tiles.py", "sylvester(outer // core)).T)", "sylvester(outer // core)))", "rotation"),
]
"""A file, what stands in it once, what is put in its place, and the check that has to notice."""


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A copy of the backend's folder under another name, which can be imported by that name until the test ends."""
    source = Path(str(operators("triton").__file__)).parent
    name = f"broken_{tmp_path.name}"
    folder = tmp_path / name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.glob("*.py"):
        file.write_text(file.read_text().replace("dvdq_kernels.backends.triton", name))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder, name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def run(name: str, *wanted: str) -> None:
    """The wanted checks of the copy called ``name``."""
    copy: ModuleType = importlib.import_module(name)
    with registered(Backend(name, lambda: copy, lambda: None)):
        for check in wanted:
            CHECKS[check](name, "cpu")


def test_a_copy_with_nothing_broken_passes(copied: tuple[Path, str]) -> None:
    run(copied[1], *CHECKS)


@pytest.mark.parametrize(("file", "right", "wrong", "check"), MUTANTS)
def test_a_broken_copy_fails(copied: tuple[Path, str], file: str, right: str, wrong: str, check: str) -> None:
    folder, name = copied
    text = (folder / file).read_text()
    assert text.count(right) == 1, "what is to be broken does not stand there once"
    (folder / file).write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError):
        run(name, check)
