"""Copies of the CPU backend with one line broken: conformance refuses each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from conformance import checks
from conformance.cases import LinearCase

from dvdq_kernels.registry import backends
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule
from mutants.copies import Break, Check, ask

pytestmark = pytest.mark.skipif(backends()["cpu"] is not None, reason=str(backends()["cpu"]))

ROW = WeightRule(4, "minmax")
SHARED = ("loops",)
"""Numba compiles these for seconds, and integer products do not depend on them."""


def linear(weight: WeightRule, activation: ActivationRule | None, in_features: int, tokens: int) -> Check:
    case = LinearCase(weight, activation, None, in_features, tokens, torch.float32)
    return partial(checks.check_linear, case=case)


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
    "symmetric BGR": partial(
        checks.check_weight, rule=WeightRule(4, "bgr-symmetric", symmetric=True), in_features=256, dtype=torch.float32
    ),
    "weight ties": checks.check_weight_ties,
    "decoding": partial(checks.check_dequantize, rule=WeightRule(4, "minmax", 64), in_features=256),
    "decoding of odd groups": partial(checks.check_dequantize, rule=WeightRule(4, "minmax", 12), in_features=72),
    "product": linear(ROW, ActivationRule(4, 64), 256, 17),
    "grouped product": linear(WeightRule(4, "minmax", 64), ActivationRule(8, 128), 256, 17),
    "eight-bit product": linear(WeightRule(8, "minmax"), ActivationRule(8), 256, 3),
    "blocks of 24": linear(ROW, ActivationRule(8, 24), 72, 3),
    "blocks of 12": linear(ROW, ActivationRule(8, 12), 72, 3),
    "more tokens than a chunk": linear(ROW, ActivationRule(4, 64), 12288, 90),
    "few tokens": linear(ROW, None, 256, 3),
    "signs": partial(checks.check_rotation, rotation=Rotation("block", seed=4), in_features=256),
    "rotation": partial(checks.check_rotation, rotation=Rotation("full"), in_features=768),
    "bfloat16": partial(
        checks.check_rotation, rotation=Rotation("full"), in_features=768, dtype=torch.bfloat16
    ),
    "activations": partial(
        checks.check_activation, rule=ActivationRule(4, 64), rotation=None, dtype=torch.float32
    ),
    "activation ties": checks.check_activation_ties,
    "signed scales": checks.check_signed_scales,
    "not finite": checks.check_not_finite,
}  # fmt: skip
BREAKS = (
    # Grids and their codes.
    Break("loops.py", "single[2 * k + 1] << 4", "single[2 * k] << 4", "min-max"),
    Break("loops.py", "np.rint(parts[row, k] / step)", "np.floor(parts[row, k] / step + 0.5)", "weight ties"),
    Break("loops.py", "-np.rint(low / scale)", "-np.floor(low / scale)", "min-max"),
    Break("loops.py", "largest / (offset - 1)", "largest / offset", "symmetric"),
    Break("loops.py", "cut = i / (2 * num_bounds)", "cut = 0 / (2 * num_bounds)", "BGR"),
    Break("weight.py", "levels, num_bounds, tolerance", "levels, 6, tolerance", "one start"),
    Break("weight.py", "levels, num_bounds, tolerance", "levels, num_bounds, 1e-3", "to the end"),
    Break("loops.py", "(1 - i / num_bounds) * whole", "whole", "symmetric BGR"),
    Break("weight.py", "least = least_code(grid)", "least = 0", "symmetric BGR"),
    Break("loops.py", "(2 * j + 1)", "(2 * j)", "BGR"),
    Break("loops.py", "prefix[width] / width / scale", "prefix[width] / width", "BGR"),
    Break("loops.py", "values[position[j]] < edges[j]", "values[position[j]] > edges[j]", "BGR"),
    # A tile of the weight.
    Break("product.py", "_spread(value & 0xFFFF)), (word * 2 + 1, _spread(value >> 16))",
          "_spread(value >> 16)), (word * 2 + 1, _spread(value & 0xFFFF))", "product"),
    Break("product.py", "(bytes_ << 4)", "(bytes_ << 3)", "product"),
    Break("product.py", "a.shuffle(low, b), a.shuffle(high, b)", "a.shuffle(high, b), a.shuffle(low, b)", "product"),
    Break("product.py", "code.loop(whole, words)", "code.loop(words, words)", "blocks of 24"),
    Break("product.py", "bias.load(row)", "bias.load(code.smaller(row + 1, code.number('outputs') - 1))", "product"),
    Break("product.py", "(zero.load(row * self.groups + group)", "(zero.load(row * self.groups)", "grouped product"),
    Break("product.py", "- self.middle).to(F32)", "- self.middle).to(F32) * 0", "product"),
    # A tile of the output.
    Break("product.py", "total * -1 * self.middle", "total * self.middle", "product"),
    Break("product.py", "code.loop(whole, self.width)", "code.loop(self.width, self.width)", "blocks of 24"),
    Break("product.py", "for count in _STRAIGHT:", "for count in _STRAIGHT[:1]:", "blocks of 24"),
    Break("product.py", "block = part * block_of // self.channels", "block = part * 0", "product"),
    Break("product.py", "group = part * self.width * self.groups // self.channels", "group = part * 0",
          "grouped product"),
    Break("product.py", "value = value - self.offset.load(place, lanes) * v", "value = value", "grouped product"),
    Break("product.py", "total += wide << 4 if plane else wide", "total.value = wide << 4 if plane else wide",
          "eight-bit product"),
    Break("product.py", "wide << 4 if plane", "wide << 3 if plane", "eight-bit product"),
    Break("product.py", 'code.array("token_sum").load(row)', 'code.array("token_sum").load(first)', "product"),
    Break("product.py", "token + t < end", "token + t < end - 1", "product"),
    Break("product.py", 'code.loop(0, code.number("outputs") - output)',
          'code.loop(0, code.number("outputs") - output - 1)', "product"),
    Break("product.py", "start.value = end", "start.value = first", "more tokens than a chunk"),
    Break("packing.py", "[0], parts, width), (0, missing))", "[0], parts, width), (missing, 0))", "blocks of 12"),
    # Rotation and activations.
    Break("transform.py", "factors.load(place, lanes)", "factors.load(start, lanes)", "signs"),
    Break("transform.py", "= 1\n    while distance < value.lanes", "= 2\n    while distance < value.lanes", "rotation"),
    Break("transform.py", "= 1\n    while distance < len(values)", "= 2\n    while distance < len(values)", "rotation"),
    Break("transform.py", "choices.load(group * core + i + r)", "choices.load(group * core + i)", "rotation"),
    Break("transform.py", "a - b, b - a,", "b - a, a - b,", "rotation"),
    Break("transform.py", "(group * _SUMS + choice)", "(choice)", "rotation"),
    Break("floats.py", "rounded = (bits + odd + 0x7FFF) >> 16", "rounded = bits >> 16", "bfloat16"),
    Break("code.py", '"rint"', '"round"', "activation ties"),
    Break("activation.py", "scale = ((bits & 0x7FFFFFFF) < _SMALLEST_SCALE).select(smallest, scale)",
          "scale = (code.constant(F32, 0) < scale).select(scale, smallest)", "not finite"),
    Break("activation.py", "found = found >> 1 | found << 31", "found = found >> 1", "signed scales"),
    Break("activation.py", "(bits << 1 | bits >> 31)", "(bits << 1)", "signed scales"),
    Break("activation.py", ".to(F32) * scale", ".to(F32)", "activations"),
    # Weights alone.
    Break("weight_only.py", "shift = 23 - stored - i", "shift = 22 - stored - i", "few tokens"),
    Break("weight_only.py", "_decoded(word, i, stored) - centres[r]", "_decoded(word, i, stored) - 1", "few tokens"),
    Break("weight_only.py", "zero = _zero(code, place)\n", "zero = _zero(code, place) * 0\n", "decoding"),
    Break("weight_only.py", "channel * stored & 7", "channel * 0 & 7", "decoding of odd groups"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _kept_apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the user's kernels; those that a break does not touch are compiled once."""
    monkeypatch.setenv("DVDQ_KERNELS_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))


def test_a_copy_with_nothing_broken_passes(tmp_path: Path) -> None:
    ask("cpu", tmp_path, CHECKS, shared=SHARED)


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_a_broken_copy_fails(broken: Break, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        ask("cpu", tmp_path, CHECKS, broken, SHARED)
