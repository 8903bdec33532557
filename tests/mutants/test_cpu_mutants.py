"""Copies of the numba backend with one line broken: conformance refuses each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from conformance import checks

from dvdq_kernels.registry import backends
from dvdq_reference.spec.recipe import WeightRule
from mutants.copies import Break, ask

pytestmark = pytest.mark.skipif(backends()["cpu"] is not None, reason=str(backends()["cpu"]))

CHECKS = {
    "min-max": partial(checks.check_weight, rule=WeightRule(4, "minmax", 64), in_features=256, dtype=torch.float32),
    "symmetric": partial(
        checks.check_weight, rule=WeightRule(4, "minmax", symmetric=True), in_features=256, dtype=torch.float32
    ),
    "BGR": partial(checks.check_weight, rule=WeightRule(4, "bgr"), in_features=256, dtype=torch.float32),
    "one start": partial(
        checks.check_weight, rule=WeightRule(4, "bgr", num_bounds=1), in_features=256, dtype=torch.float32
    ),
    "to the end": partial(
        checks.check_weight, rule=WeightRule(4, "bgr", 128, tolerance=0.0), in_features=256, dtype=torch.float32
    ),
    "ties": checks.check_weight_ties,
}
BREAKS = (
    Break("loops.py", "single[2 * k + 1] << 4", "single[2 * k] << 4", "min-max"),
    Break("loops.py", "np.rint(parts[row, k] / step)", "np.floor(parts[row, k] / step + 0.5)", "ties"),
    Break("loops.py", "-np.rint(low / scale)", "-np.floor(low / scale)", "min-max"),
    Break("loops.py", "largest / (offset - 1)", "largest / offset", "symmetric"),
    Break("loops.py", "cut = i / (2 * num_bounds)", "cut = 0 / (2 * num_bounds)", "BGR"),
    Break("weight.py", "levels, num_bounds, tolerance", "levels, 6, tolerance", "one start"),
    Break("weight.py", "levels, num_bounds, tolerance", "levels, num_bounds, 1e-3", "to the end"),
    Break("loops.py", "(2 * j + 1)", "(2 * j)", "BGR"),
    Break("loops.py", "total / width / scale", "total / width", "BGR"),
    Break("loops.py", "values[position[j]] < edges[j]", "values[position[j]] > edges[j]", "BGR"),
)


def test_a_copy_with_nothing_broken_passes(tmp_path: Path) -> None:
    ask("cpu", tmp_path, CHECKS)


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_a_broken_copy_fails(broken: Break, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        ask("cpu", tmp_path, CHECKS, broken)
