"""A plan names what would run, here or on a GPU that is not here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from dvdq_kernels import refusals
from dvdq_kernels.backend import Backend, Preference, Step
from dvdq_kernels.call import Place
from dvdq_kernels.plan import Plan, plan_linear
from dvdq_kernels.registry import operators, registered
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton is there on Linux alone")
WITHOUT_A_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU does")
WITH_CPU = pytest.mark.skipif(refusals.absence("numba") is not None, reason=str(refusals.absence("numba")))
WITH_CUPY = pytest.mark.skipif(refusals.absence("cupy") is not None, reason=str(refusals.absence("cupy")))


@pytest.fixture
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no libraries but these were installed."""
    monkeypatch.setattr(refusals, "is_installed", lambda module: module in request.param)


@WITHOUT_A_GPU
@pytest.mark.parametrize("activation", [None, ActivationRule(4)], ids=str)
def test_with_nothing_else_it_is_torch_and_says_why(
    activation: ActivationRule | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    device = torch.device("cpu")
    plan = plan_linear(7, 64, 256, WeightRule(), activation, Rotation())
    assert plan == plan_linear(7, 64, 256, WeightRule(), activation, Rotation(), device=device)
    assert (plan.backend, plan.kernels) == ("torch", ("operations of PyTorch",))
    assert "no CUDA device" in plan.refused["triton"]
    assert plan.refused["cpu"] == "numba is not installed: pip install 'dvdq-kernels[cpu]'"
    assert plan.reason.startswith("by rule: ")


@WITHOUT_A_GPU
@WITH_CPU
@pytest.mark.parametrize("activation", [None, ActivationRule(4)], ids=str)
def test_on_a_cpu_the_instruction_set_is_told(
    activation: ActivationRule | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVDQ_CPU_INSTRUCTIONS", "portable")
    plan = plan_linear(7, 64, 256, WeightRule(), activation, Rotation())
    steps = ["float_linear"] if activation is None else ["rotate_quantize", "integer_linear"]
    assert (plan.backend, plan.kernels) == ("cpu", tuple(f"{step} with portable" for step in steps))
    assert list(plan.refused) == ["triton", "cupy"]


def test_a_backend_tells_what_it_starts_in_its_own_words() -> None:
    toy = Backend("toy", lambda: operators("torch"), preference=lambda call: Preference(99))
    for backend, suffix in ((toy, ""), (replace(toy, describe=_on), " on cpu")):
        with registered(backend):
            plan = plan_linear(7, 64, 256, WeightRule(), ActivationRule(4), None, device=torch.device("cpu"))
        assert plan.kernels == (f"rotate_quantize{suffix}", f"integer_linear{suffix}")


def _on(place: Place, steps: Sequence[Step]) -> list[str]:
    return [f"{step.operator.__name__} on {place.type}" for step in steps]


@ON_LINUX
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("installed", [["triton"]], indirect=True)
@pytest.mark.parametrize("capability", [80, 89, 90, 100, 120])
def test_the_route_follows_from_the_tokens(capability: int) -> None:
    def names(tokens: int, activation: ActivationRule | None) -> list[str]:
        plan = plan_linear(tokens, 3072, 3072, WeightRule(), activation, Rotation(), capability=capability)
        assert plan.backend == "triton"
        assert set(plan.refused) <= {"cupy"}
        return [kernel.split(",")[0].split()[0] for kernel in plan.kernels]

    assert names(118_800, ActivationRule(8)) == ["rotate_quantize", "unpack", "integer_product"]
    assert names(3, ActivationRule(4)) == ["rotate_quantize", "integer_product"]
    assert names(1, None) == ["rotate", "weight_only_product"]


@ON_LINUX
def test_tiles_are_told_and_where_they_come_from() -> None:
    plan = plan_linear(32760, 1536, 1536, WeightRule(), ActivationRule(4), None, capability=90)
    assert plan.kernels[-1].startswith("integer_product 128×")


@ON_LINUX
@WITH_CUPY
@pytest.mark.parametrize("capability", [80, 86, 89])
def test_int4_tensor_cores_are_those_of_cupy(capability: int) -> None:
    def plan(weight_bits: int, bits: int) -> Plan:
        rule = WeightRule(weight_bits, "minmax")
        return plan_linear(32760, 1536, 1536, rule, ActivationRule(bits, 128), Rotation(), capability=capability)

    narrow = plan(4, 4)
    assert (narrow.backend, narrow.refused) == ("cupy", {})
    assert "INT4 tensor cores" in narrow.reason
    assert len(narrow.kernels) > 1
    assert not any(kernel.startswith("triton: ") for kernel in narrow.kernels)
    assert plan(4, 8).backend == "triton"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("installed", [[]], indirect=True)
def test_without_a_compiler_no_other_gpu_is_planned_for() -> None:
    with pytest.raises(DvdqError, match="a backend that can run here") as error:
        plan_linear(1, 64, 256, WeightRule(), ActivationRule(8), None, capability=90)
    assert "triton is not installed" in str(error.value.got)
    assert "cupy is not installed: pip install 'dvdq-kernels[cupy]'" in str(error.value.got)
    assert "torch (tells no launches" in str(error.value.got)


@pytest.mark.parametrize("capability", [0, 75])
def test_a_gpu_without_kernels_is_refused(capability: int) -> None:
    with pytest.raises(DvdqError, match="capability"):
        plan_linear(1, 64, 256, WeightRule(), None, None, capability=capability)
