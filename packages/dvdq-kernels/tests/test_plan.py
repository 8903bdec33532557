"""A plan names what would run, here or on a GPU that is not here."""

from __future__ import annotations

import sys

import pytest
import torch

from dvdq_kernels.plan import plan_linear
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton is there on Linux alone")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU does")
def test_without_a_gpu_it_is_torch_and_says_why() -> None:
    plan = plan_linear(7, 64, 256, WeightRule(), ActivationRule(4), Rotation())
    assert (plan.backend, plan.kernels) == ("torch", ("operations of PyTorch",))
    assert "no CUDA device" in plan.refused["triton"]


@ON_LINUX
@pytest.mark.parametrize("capability", [80, 89, 90, 100, 120])
def test_the_route_follows_from_the_tokens(capability: int) -> None:
    def names(tokens: int, activation: ActivationRule | None) -> list[str]:
        plan = plan_linear(tokens, 3072, 3072, WeightRule(), activation, Rotation(), capability=capability)
        return [kernel.split(",")[0].split()[0] for kernel in plan.kernels]

    assert names(118_800, ActivationRule(8)) == ["rotate_quantize", "unpack", "integer_product"]
    assert names(3, ActivationRule(4)) == ["rotate_quantize", "integer_product"]
    assert names(1, None) == ["rotate", "weight_only_product"]


@ON_LINUX
def test_tiles_are_told_and_where_they_come_from() -> None:
    plan = plan_linear(32760, 1536, 1536, WeightRule(), ActivationRule(4), None, capability=90)
    assert plan.kernels[-1].endswith("(rule)")
    assert plan.kernels[-1].startswith("integer_product 128×")


@pytest.mark.parametrize("capability", [0, 75])
def test_a_gpu_without_kernels_is_refused(capability: int) -> None:
    with pytest.raises(DvdqError, match="capability"):
        plan_linear(1, 64, 256, WeightRule(), None, None, capability=capability)
