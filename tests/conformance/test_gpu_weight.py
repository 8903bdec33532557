"""What conformance does not ask of the weights of GPU backends: how often grids are not the oracle's, and odd rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import dvdq_kernels as kernels
from conformance import cases
from conformance.checks import poisoned, stored
from conformance.test_backends import places
from dvdq_reference.oracle import affine, bgr, bounds
from dvdq_reference.oracle.inputs import Floats
from dvdq_reference.spec.recipe import BGR_BOUNDS, WeightRule

PLACES = [place for place in places("quantize_weight") if place[0] in ("triton", "cupy")]
pytestmark = pytest.mark.parametrize(("backend", "device"), PLACES)
TIE = 2.0**-32
"""The search rounds quotients to multiples of this, so that it takes what is nearer than that to a tie for one."""


def quantized(weight: torch.Tensor, rule: WeightRule, backend: str, device: str) -> affine.Grid:
    """The stored grid; the codes have been found to be its codes."""
    with poisoned():
        qweight = kernels.quantize_weight(weight.to(device), rule, backend=backend)
    codes, grid = stored(qweight)
    np.testing.assert_array_equal(codes, affine.quantize(weight.double().numpy(), grid))
    return grid


def differs(
    weight: torch.Tensor, rule: WeightRule, backend: str, device: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which rows or groups, ``[out, groups]``, have another grid than the oracle's, stored as float32."""
    grid = quantized(weight, rule, backend, device)
    exact = weight.double().numpy()
    if rule.grid == "bgr":
        truth = bgr.refine_grid(exact, rule.bits, group_size=rule.group_size).grid
    else:
        truth = affine.minmax_grid(exact, rule.bits, group_size=rule.group_size, symmetric=rule.symmetric)
    return np.asarray((grid.scale != truth.scale.astype(np.float32)) | (grid.zero != truth.zero))


def error(weight: Floats, grid: affine.Grid) -> Floats:
    """Root of the squared error of each row, decoded in float64."""
    return np.asarray(np.linalg.norm(weight - affine.dequantize(affine.quantize(weight, grid), grid), axis=1))


def student_t(*shape: int, seed: int) -> torch.Tensor:
    """Heavy tails: Student's t with four degrees of freedom."""
    return torch.from_numpy(np.random.default_rng(seed).standard_t(4, shape)).float()


@pytest.mark.parametrize("sample", [cases.gaussian, student_t])
def test_grids_are_the_oracles(backend: str, device: str, sample: Callable[..., torch.Tensor]) -> None:
    """None of 400 differs, which is what the odds are.

    The search makes the oracle's decisions in the oracle's arithmetic, float64. One that comes out otherwise needs a
    quotient within 2^-32 of a tie, or a comparison of errors that summing in another order, a relative 2^-53 times the
    logarithm of the length, can turn. With 64 values and about 70 evaluated grids a row that is 64 · 70 · 2^-32 = 1e-6
    for the ties and less for the comparisons, under a thousandth for all rows together.
    """
    weight = sample(200, 128, seed=1)
    assert differs(weight, WeightRule(4, "bgr", 64), backend, device).sum() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_grid_that_differs_had_a_tie(backend: str, device: str, dtype: torch.dtype) -> None:
    """Short floats do lie on ties of the grids that a search starts from.

    Such a start, Δ, is itself rounded where its range is cut by a sixth, and then it is that rounding which decides
    for the oracle. Only rows with such a value may differ, and of those only the ones in which it wins.
    """
    weight = cases.gaussian(300, 64, seed=2, dtype=dtype)
    exact = weight.double().numpy()
    low, high = exact.min(axis=1), exact.max(axis=1)
    tied = np.zeros(len(exact), bool)
    for i in range(BGR_BOUNDS):
        cut = i / (2 * BGR_BOUNDS) * (high - low)
        scale, _ = affine.grid_of_range(low + cut, high - cut, 4)
        quotient = exact / scale[:, None]
        tied |= (np.abs(quotient - np.floor(quotient) - 0.5) < TIE).any(axis=1)
    assert 0 < tied.sum() < len(exact)
    assert not (differs(weight, WeightRule(4, "bgr"), backend, device)[:, 0] & ~tied).any()


def test_ties_of_a_start(backend: str, device: str) -> None:
    """Half of these values lie on ties of the grid from min to max, whose Δ, twice a whole number, divides exactly.

    Its reciprocal is not exact: a search that multiplied by it, and did no more, would have other grids in some rows.
    """
    rng = np.random.default_rng(6)
    steps = rng.integers(-13, 16, (300, 64))
    steps[:, :2] = -14, 16
    weight = torch.from_numpy(steps * rng.integers(100, 400, (300, 1))).float()
    assert not differs(weight, WeightRule(4, "bgr"), backend, device).any()


def odd_rows() -> torch.Tensor:
    """Rows of 64 at the ends of float32's range, far from zero, of two scales, alike, and empty of all but one."""
    normal = cases.gaussian(12, 64, seed=3)
    normal[0] *= 1e30
    normal[1] *= 1e-30
    normal[2] *= 1e-40
    normal[3] *= 3e38 / normal[3].abs().max()
    normal[4] += 1e4
    normal[5] = 7 - normal[5] * 1e-6
    normal[6, 3] = 1e30
    normal[7, ::2] *= 1e-12
    normal[8] = -0.3
    normal[9] = 0
    normal[10] = normal[10].sign()
    normal[11] = torch.nn.functional.one_hot(torch.tensor(5), 64) * -3.5
    return normal


@pytest.mark.parametrize("grid", ["minmax", "bgr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_rows(backend: str, device: str, grid: str, dtype: torch.dtype) -> None:
    assert not differs(odd_rows().to(dtype), WeightRule(4, grid), backend, device).any()


def test_never_worse_than_minmax(backend: str, device: str) -> None:
    """But for the rounding of the two Δ to float32, which moves Ŵ by at most u |Ŵ|."""
    weight = torch.cat([odd_rows(), cases.weights(64), student_t(60, 64, seed=4)])
    exact = weight.double().numpy()
    found = quantized(weight, WeightRule(4, "bgr"), backend, device)
    start = quantized(weight, WeightRule(4, "minmax"), backend, device)
    decoded = affine.dequantize(affine.quantize(exact, start), start)
    assert (error(exact, found) <= error(exact, start) + 2 * bounds.gamma(1) * np.linalg.norm(decoded, axis=1)).all()


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ((1, 2), WeightRule(4, "bgr")),
        ((5, 50), WeightRule(2, "bgr")),
        ((3, 129), WeightRule(8, "bgr")),
        ((7, 90), WeightRule(4, "bgr", 15)),
        ((3, 6), WeightRule(4, "minmax", 1)),
        ((3, 2050), WeightRule(5, "minmax", symmetric=True)),
        ((2, 20000), WeightRule(4, "bgr")),
        ((2, 20000), WeightRule(3, "minmax")),
    ],
    ids=str,
)
def test_sizes_of_all_kinds(backend: str, device: str, shape: tuple[int, int], rule: WeightRule) -> None:
    """No size divides a block; what lies behind the weight is NaN and is not looked at."""
    base = torch.full((shape[0] + 2, shape[1]), torch.nan)
    base[: shape[0]] = cases.gaussian(*shape, seed=5)
    assert not differs(base[: shape[0]], rule, backend, device).any()
    qweight = kernels.quantize_weight(base[: shape[0]].to(device), rule, backend=backend)
    with poisoned():
        decoded = kernels.dequantize(qweight, backend=backend)
    codes, grid = stored(qweight)
    np.testing.assert_array_equal(decoded.cpu().numpy(), affine.dequantize(codes, grid).astype(np.float32))
