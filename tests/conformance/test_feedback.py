"""Rounding with error feedback: the oracle's codes, bit for bit, from another form of the equations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

import dvdq_kernels as kernels
from dvdq_kernels import feedback
from dvdq_reference.oracle import packing
from dvdq_reference.oracle.affine import Grid
from dvdq_reference.oracle.feedback import moments_in_basis, output_error, round_with_feedback, second_moments
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Rotation, WeightRule

IN = 3 * feedback._BLOCK
SIGNS = Rotation("full", seed=3)
RULES = [
    (WeightRule(4, "bgr"), SIGNS),
    (WeightRule(4, "minmax", 64), None),
    (WeightRule(3, "minmax", 192, symmetric=True), SIGNS),
    (WeightRule(4, "bgr-symmetric", symmetric=True), Rotation("full")),
    (WeightRule(8, "minmax"), None),
]


def data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations whose channels share a few causes and have a dead one and outliers among them, and weights."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(1000, 40, generator=generator)
    x = causes @ torch.randn(40, IN, generator=generator) + 0.3 * torch.randn(1000, IN, generator=generator)
    x[:, 7], x[:, 200] = 0.0, 50 * x[:, 200]
    return x, torch.randn(24, IN, generator=generator)


def check(rule: WeightRule, rotation: Rotation | None, seed: int = 0) -> None:
    """``quantize_weight`` has the oracle's codes on the grid that it found, which is that of rounding to nearest.

    Both are computed in float64, so that a code may differ where what is rounded lies within some 1e-10 of a tie: of
    these 9216, on average, none.
    """
    x, weight = data(seed)
    moments = x.T @ x
    fed = dataclasses.replace(rule, rounding="feedback")
    m = feedback.error_feedback(moments, rotation)
    got = kernels.quantize_weight(weight, fed, rotation=rotation, feedback=m, backend="torch")
    plain = kernels.quantize_weight(weight, rule, rotation=rotation, backend="torch")
    assert torch.equal(got.scale, plain.scale)
    zero = torch.full(got.scale.shape, 2 ** (rule.bits - 1)) if got.zero is None else got.zero
    grid = Grid(got.scale.double().numpy(), zero.long().numpy(), rule.bits, rule.least_code)
    rotated = weight if rotation is None else kernels.rotate(weight, rotation, backend="torch")
    there = moments_in_basis(moments.double().numpy(), rotation=rotation)
    codes = packing.unpack(got.qweight.numpy(), rule.bits, IN)
    expected = round_with_feedback(rotated.numpy(), grid, there)
    assert (codes == expected).all(), f"{(codes != expected).sum()} codes of {codes.size} differ"
    nearest = packing.unpack(plain.qweight.numpy(), rule.bits, IN)
    errors = [output_error(rotated.numpy(), c, grid, there).sum() for c in (codes, nearest)]
    assert errors[0] < 0.5 * errors[1], "the output's error is not halved"


@pytest.mark.parametrize(("rule", "rotation"), RULES, ids=lambda value: getattr(value, "grid", None))
def test_codes_are_the_oracles(rule: WeightRule, rotation: Rotation | None) -> None:
    check(rule, rotation)


def test_what_was_left_is_fed_back_too() -> None:
    x, weight = data(1)
    rule = WeightRule(4, "minmax", 64, rounding="feedback")
    m = feedback.error_feedback(x.T @ x, SIGNS)
    first = kernels.quantize_weight(weight, rule, rotation=SIGNS, feedback=m, backend="torch")
    second = kernels.quantize_weight(weight, rule, rotation=SIGNS, left_by=first, feedback=m, backend="torch")
    assert second.zero is not None
    left = kernels.rotate(weight, SIGNS, backend="torch") - kernels.dequantize(first, backend="torch")
    grid = Grid(second.scale.double().numpy(), second.zero.long().numpy(), 4)
    there = moments_in_basis((x.T @ x).double().numpy(), rotation=SIGNS)
    codes = packing.unpack(second.qweight.numpy(), 4, IN)
    assert (codes == round_with_feedback(left.numpy(), grid, there)).all()


def test_what_is_fed_back_is_that_of_the_moments_alone() -> None:
    """Whatever their number, and in float64 whatever they are stored in: a power of two changes no bit."""
    x, _ = data(2)
    m = feedback.error_feedback(x.T @ x, SIGNS)
    assert m.dtype == torch.float64
    assert torch.equal(m, feedback.error_feedback((x.T @ x) * 2.0**-30, SIGNS))
    assert torch.equal(m.diagonal(), torch.ones(IN, dtype=torch.float64))
    assert torch.equal(m, m.triu())
    moments = second_moments(x.numpy())
    h = moments_in_basis(moments, rotation=SIGNS)
    h += 0.01 * np.trace(h) / IN * np.eye(IN)
    upper = np.linalg.inv(m.numpy())
    # M D Mᵀ = H, so that M⁻¹ H M⁻ᵀ is diagonal, as far as float64 goes.
    d = upper @ h @ upper.T
    assert np.abs(d - np.diag(np.diag(d))).max() <= IN**2 * 2.0**-53 * np.linalg.cond(h) * np.abs(h).max()
    zero = torch.zeros(IN, IN)
    assert torch.equal(feedback.error_feedback(zero, SIGNS), torch.eye(IN, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: kernels.quantize_weight(w, WeightRule(rounding="feedback")), "feedback: expected what error_feed"),
        (lambda w: kernels.quantize_weight(w, WeightRule(), feedback=torch.eye(8).double()), "feedback: expected none"),
        (
            lambda w: kernels.quantize_weight(w, WeightRule(rounding="feedback"), feedback=torch.eye(4).double()),
            r"expected float64 \[8, 8\], got float64 \[4, 4\]",
        ),
        (
            lambda w: kernels.quantize_weight(w, WeightRule(rounding="feedback"), feedback=torch.eye(8)),
            r"expected float64 \[8, 8\], got float32 \[8, 8\]",
        ),
        (lambda w: feedback.error_feedback(w), "error_feedback: expected a square matrix"),
        (lambda w: feedback.error_feedback(torch.eye(4) * torch.nan), "error_feedback: expected .* finite"),
        (lambda w: feedback.error_feedback(torch.ones(4, 4) - 2 * torch.eye(4)), "no negative eigenvalue"),
        (lambda w: feedback.error_feedback(-torch.eye(4)), "no negative eigenvalue"),
    ],
)
def test_bad_input(call: Callable[[torch.Tensor], object], message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        call(torch.ones(3, 8))
