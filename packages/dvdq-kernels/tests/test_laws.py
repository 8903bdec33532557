"""Laws that hold for any input: of grids, packing and rotation. What the right values are, conformance asks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dvdq_kernels as kernels
from dvdq_kernels.backends.torch import bgr
from dvdq_kernels.backends.torch.clip_search import search_clip
from dvdq_kernels.backends.torch.packing import pack, unpack
from dvdq_kernels.rotation import core_size, paley, sylvester
from dvdq_reference.spec.recipe import BGR_BOUNDS, BGR_TOLERANCE, Rotation, WeightRule

UNIT = 2.0**-24


def refine(
    weight: torch.Tensor, bits: int, *, tolerance: float = BGR_TOLERANCE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return bgr.refine(weight, bits, BGR_BOUNDS, tolerance)


def squared_error(weight: torch.Tensor, rule: WeightRule) -> torch.Tensor:
    decoded = kernels.dequantize(kernels.quantize_weight(weight, rule))
    return (weight.double() - decoded.double()).square().sum(dim=1)


@st.composite
def matrices(draw: st.DrawFn) -> torch.Tensor:
    """Rows of unlike scale and shape: normal, heavy-tailed, few distinct values, one outlier, far from zero."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width = draw(st.integers(1, 5)), 2 * draw(st.integers(1, 40))
    kind = draw(st.sampled_from(["normal", "heavy", "few", "outlier", "far"]))
    values = rng.standard_normal((rows, width))
    if kind == "heavy":
        values = rng.standard_t(2, (rows, width))
    elif kind == "few":
        values = rng.integers(-2, 3, (rows, width)).astype(float)
    elif kind == "outlier":
        values[:, 0] *= 1e4
    elif kind == "far":
        values += 1e3
    return torch.from_numpy(values * 10.0 ** draw(st.integers(-30, 30))).float()


@given(matrices(), st.integers(2, 8))
def test_bgr_is_never_worse_than_minmax(weight: torch.Tensor, bits: int) -> None:
    if bits <= 4 or weight.shape[1] % 2 == 0:
        best, plain = (squared_error(weight, WeightRule(bits, grid)).sqrt() for grid in ("bgr", "minmax"))
        # Both Δ are stored as float32, which moves each decoded value by at most a unit roundoff of itself.
        slack = 2 * UNIT * (weight.double().norm(dim=1) + plain)
        assert (best <= plain + slack).all()


@given(matrices(), st.floats(1e-3, 1e3))
def test_bgr_follows_the_scale_of_a_weight(weight: torch.Tensor, factor: float) -> None:
    """Scaling by a power of two scales Δ, and leaves z and the codes."""
    power = 2.0 ** round(np.log2(factor))
    values = weight.double()
    scale, zero, error = refine(values, 4)
    scaled, moved, scaled_error = refine(values * power, 4)
    assert torch.equal(scaled, scale * power)
    assert torch.equal(moved, zero)
    assert torch.equal(scaled_error, error * power**2)


@given(matrices(), st.randoms(use_true_random=False))
def test_bgr_does_not_see_the_order_of_a_row(weight: torch.Tensor, random: object) -> None:
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))
    for a, b in zip(refine(weight, 4), refine(weight[:, order], 4), strict=True):
        assert torch.equal(a, b)


@given(matrices())
def test_more_rounds_never_raise_the_error(weight: torch.Tensor) -> None:
    tight, loose = refine(weight, 4, tolerance=0.0)[2], refine(weight, 4)[2]
    assert (tight <= loose).all()


def test_a_clip_is_that_of_its_row() -> None:
    """Whatever rows are searched together with it: 512 values a row make more than one chunk of these."""
    weight = torch.from_numpy(np.random.default_rng(0).standard_t(3, (150, 512))).float()
    scale, zero = search_clip(weight, 4)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert torch.equal(search_clip(weight[order], 4)[0], scale[order])
    assert torch.equal(torch.cat([search_clip(row[None], 4)[0] for row in weight]), scale)
    assert (zero == 8).all()


@pytest.mark.parametrize("grid", ["minmax", "bgr"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e30, -1e30, 1e-30])
def test_constant_rows_decode_exactly(grid: str, value: float) -> None:
    weight = torch.full((2, 8), value)
    qweight = kernels.quantize_weight(weight, WeightRule(4, grid))
    assert torch.equal(kernels.dequantize(qweight), weight)


@given(st.integers(2, 8), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack(bits: int, rows: int, half: int, seed: int) -> None:
    codes = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, (rows, 2 * half), dtype=np.uint8))
    packed = pack(codes, bits)
    assert torch.equal(unpack(packed, bits), codes)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(unpack(packed, bits, dtype, 8), codes.to(dtype) - 8)


@pytest.mark.parametrize("size", [1, 2, 12, 20, 24, 60, 80, 108, 140, 256, 768, 1536, 3072])
def test_factors_are_hadamard_matrices(size: int) -> None:
    core = core_size(size)
    assert core is not None
    for matrix in (paley(core), sylvester(size // core)):
        n = matrix.shape[0]
        assert np.array_equal(matrix @ matrix.T, n * np.eye(n))
        assert set(np.unique(matrix)) <= {-1.0, 1.0}


@given(st.sampled_from([2, 12, 24, 40, 256, 512]), st.none() | st.integers(0, 99), st.integers(0, 2**32 - 1))
def test_rotation_keeps_inner_products(size: int, seed: int | None, state: int) -> None:
    x = torch.from_numpy(np.random.default_rng(state).standard_normal((4, size)))
    rotations = [Rotation("full", seed)]
    if size % 256 == 0:
        rotations += [Rotation("block", seed), Rotation("regular")]
    for rotation in rotations:
        rotated = kernels.rotate(x, rotation)
        norms = x.norm(dim=1)
        # Two float64 transforms of at most `size` terms each, and the product itself.
        slack = 3 * size * 2.0**-53 * norms[:, None] * norms
        assert ((rotated @ rotated.T - x @ x.T).abs() <= slack).all()
