"""Which backend a call gets: what was measured decides, a rule where nothing was, and why is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dvdq_kernels as kernels
from dvdq_kernels import ranking, refusals
from dvdq_kernels.backends.cupy.target import EMULATE
from dvdq_kernels.call import Call, Place
from dvdq_kernels.registry import registry
from dvdq_kernels.selection import packs, preferences, select
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

GPU = "NVIDIA Imaginary"
LARGE, SMALL = (32760, 1536, 1536, 128), (16, 1536, 1536, 128)


def linear(capability: int, **fields: Any) -> Call:
    """Of 4-bit weights and activations, on a GPU that is said to be here."""
    given = {"x_bits": 4, "bits": 4, "shape": LARGE, "packed": 80 <= capability <= 89}
    return Call("quantized_linear", Place("cuda", capability, GPU), **(given | fields))


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is missing here, ``cupy`` and ``triton`` can run on a GPU."""
    for name in ("cupy", "triton"):
        takes_a_gpu = {
            "refusal": lambda: None,
            "device_types": lambda: frozenset({"cuda"}),
            "for_checks": lambda: False,
        }
        monkeypatch.setitem(registry(), name, replace(registry()[name], **takes_a_gpu))


Row = tuple[str, int | None, int | None, tuple[int, ...], Mapping[str, float]]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts rows in the place of what was measured."""

    def put(*rows: Row, device: str = GPU) -> None:
        names = "operation", "x_bits", "bits", "shape", "seconds"
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        run = {"device": device, "rows": [dict(zip(names, row, strict=True)) for row in rows]}
        path.write_text(json.dumps({"runs": [run]}))
        monkeypatch.setattr(ranking, "RANKING", path)

    return put


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
def test_by_rule_cupy_is_first_where_it_alone_reaches_int4_tensor_cores(
    capability: int, measure: Callable[..., None]
) -> None:
    measure()
    first, place = "cupy" if capability < 90 else "triton", Place("cuda", capability, GPU)
    selection = select(linear(capability))
    assert (selection.backend.name, dict(selection.refused)) == (first, {})
    assert ("INT4" in selection.reason) == (first == "cupy")
    for other in (linear(capability, x_bits=8, packed=False), linear(capability, bits=8, packed=False)):
        assert preferences(other) == (("triton", "cupy", "cpu", "torch"), "by rule: triton, cupy, cpu, torch")
    assert packs(place, 4, "auto") == packs(place, 4, "cupy") == packs(place, 3, "auto") == (first == "cupy")
    assert not packs(place, 8, "auto")
    assert not packs(place, 4, "triton")
    quantizer = Call("rotate_quantize", place, x_bits=4, shape=(32760, 1536, 128), packed=first == "cupy")
    assert select(quantizer).backend.name == first


@pytest.mark.usefixtures("able")
def test_the_nearest_shape_that_was_measured_decides(measure: Callable[..., None]) -> None:
    measure(
        ("quantized_linear", 4, 4, LARGE, {"cupy": 0.001, "triton": 0.002}),
        ("quantized_linear", 4, 4, SMALL, {"cupy": 2e-5, "triton": 1e-5}),
        ("quantized_linear", 8, 4, LARGE, {"cupy": 0.002, "triton": 0.001}),
        ("rotate_quantize", 4, None, (32760, 1536, 128), {"cupy": 0.001, "triton": 0.002}),
    )
    many = select(linear(90, shape=(75_600, 5120, 5120, 128)))
    assert many.backend.name == "cupy"
    assert many.reason == f"measured on {GPU} at 32768×2048×2048×128: cupy 1 ms, triton 2 ms"
    assert select(linear(90, shape=(17, 3072, 3072, 128))).backend.name == "triton"
    assert select(linear(90, x_bits=8)).backend.name == "triton"
    assert select(Call("rotate_quantize", linear(90).place, x_bits=4, shape=(9, 256, 64))).backend.name == "cupy"
    # Nothing of these was measured.
    assert select(linear(90, x_bits=6)).reason.startswith("by rule")
    assert select(linear(90)._replace(place=Place("cuda", 90, "another"))).reason.startswith("by rule")


@pytest.mark.usefixtures("able")
def test_what_was_not_measured_keeps_its_place(measure: Callable[..., None]) -> None:
    measure(("quantized_linear", 8, 4, LARGE, {"torch": 0.001, "triton": 0.002}))
    assert preferences(linear(90, x_bits=8))[0] == ("torch", "cupy", "cpu", "triton")
    measure(("quantized_linear", 8, 4, LARGE, {"cupy": 0.001}))
    order = "triton", "cupy", "cpu", "torch"
    assert preferences(linear(90, x_bits=8)) == (order, f"by rule: {', '.join(order)}")


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("faster", ["cupy", "triton"])
def test_whether_codes_are_packed_is_decided_for_the_format(faster: str, measure: Callable[..., None]) -> None:
    """By the mean of the products; what the other is faster at changes nothing."""
    slower = "triton" if faster == "cupy" else "cupy"
    measure(
        ("quantized_linear", 4, 4, LARGE, {faster: 0.001, slower: 0.004}),
        ("quantized_linear", 4, 4, SMALL, {faster: 0.002, slower: 0.001}),
        ("rotate_quantize", 4, None, (32760, 1536, 128), {faster: 0.004, slower: 0.001}),
    )
    packed = packs(linear(89).place, 4, "auto")
    assert packed == (faster == "cupy")
    assert not packs(linear(90).place, 4, "auto")
    for shape in (LARGE, SMALL):
        selection = select(linear(89, shape=shape, packed=packed))
        assert selection.backend.name == faster
        assert selection.reason.startswith(f"measured on {GPU} in the mean of 2 shapes: cupy ")
        assert select(linear(89, shape=shape, packed=not packed)).reason.startswith("by rule")
    quantizer = Call("rotate_quantize", linear(89).place, x_bits=4, shape=(32760, 1536, 128), packed=packed)
    assert select(quantizer).backend.name == faster


@pytest.mark.usefixtures("able")
def test_shapes_of_a_class_are_averaged(measure: Callable[..., None]) -> None:
    measure(
        ("quantized_linear", 8, 4, (1000, 256, 256, 256), {"cupy": 1.0, "triton": 2.0, "torch": 9.0}),
        ("quantized_linear", 8, 4, (900, 200, 256, 256), {"cupy": 4.0, "triton": 8.0}),
    )
    found = ranking.measured(linear(90, x_bits=8, shape=(1024, 256, 256, 256)))
    assert found is not None
    assert found.times == pytest.approx({"cupy": 2.0, "triton": 4.0})
    found = ranking.measured(linear(90, x_bits=8, shape=None))
    assert found is not None
    assert found.times == pytest.approx({"cupy": 0.5, "triton": 1.0})


def test_a_refused_backend_is_told_with_the_next(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry(), "cupy", replace(registry()["cupy"], refusal=lambda: "away"))
    selection = select(linear(89, packed=False))
    assert (selection.backend.name, dict(selection.refused)) == ("triton", {})
    assert select(linear(89, packed=None)).backend.name == "triton"
    assert dict(select(linear(89, packed=None)).refused) == {"cupy": "away"}
    assert not packs(linear(89).place, 4, "auto")
    packed = select(linear(89, packed=True))
    assert packed.backend.name == "torch"
    assert list(packed.refused) == ["cupy", "triton", "cpu"]
    assert "two a byte" in packed.refused["triton"]
    assert select(linear(89), "torch").reason == "asked for by name"


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATE, "89")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")


CPU_LINEAR = Call("quantized_linear", Place("cpu"), x_bits=4, bits=4, shape=LARGE)


@pytest.mark.usefixtures("emulated")
def test_an_emulated_gpu_runs_on_the_cpu_and_is_asked_for_by_name() -> None:
    assert kernels.backends()["cupy"] is None
    selection = select(CPU_LINEAR)
    assert selection.backend.name != "cupy"
    assert selection.refused.get("cupy", "by name alone").endswith("by name alone")
    assert select(CPU_LINEAR, "cupy").backend.name == "cupy"
    assert packs(Place("cpu"), 4, "cupy")
    assert not packs(Place("cpu"), 8, "cupy")
    assert not packs(Place("cpu"), 4, "auto")
    with pytest.raises(DvdqError, match=r"cupy \(runs on cpu, not on cuda\)"):
        select(linear(89), "cupy")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("capability", [89, 90])
def test_what_is_emulated_here_changes_no_plan_for_another_gpu(
    capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "is_installed", lambda module: module in ("cupy", "triton"))
    planned = Place("cuda", capability, here=False)
    assert select(linear(capability)._replace(place=planned)).backend.name == ("cupy" if capability == 89 else "triton")
    assert packs(planned, 4, "auto") == (capability == 89)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("capability", "packed"), [("80", True), ("90", False), ("120", False)])
def test_what_is_emulated_decides_on_packing(capability: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATE, capability)
    assert packs(Place("cpu"), 4, "cupy") == packed


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("value", ["75", "8.9", "yes", "-80"])
def test_a_gpu_that_cannot_be_emulated_is_a_reason(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATE, value)
    assert str(kernels.backends()["cupy"]).endswith(f"such as 89: {value}")


@pytest.mark.usefixtures("emulated")
def test_emulation_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no no-such-compiler is found" in str(kernels.backends()["cupy"])


@pytest.mark.parametrize("name", ["cupy", "triton"])
def test_an_old_gpu_is_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMULATE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(refusals, "is_installed", lambda module: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert kernels.backends()[name] == "needs compute capability 8.0, this device has 7.5"


def test_the_backend_is_selected_when_the_operator_runs(measure: Callable[..., None]) -> None:
    """Sizes are known there, in a compiled graph too."""
    seen = []
    qweight = kernels.quantize_weight(torch.randn(8, 256), WeightRule(4, "minmax"), rotation=Rotation())
    rule = ActivationRule(4, 128)
    compiled = torch.compile(
        lambda x: kernels.quantized_linear(x, qweight, rule, rotation=Rotation()), fullgraph=True, backend="aot_eager"
    )

    def spy(call: Call, backend: str = "auto") -> Any:
        seen.append((call.operation, call.x_bits, call.bits, call.shape, call.packed))
        return select(call, backend)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvdq_kernels.ops.select", spy)
        for tokens in (3, 5, 7):
            compiled(torch.randn(tokens, 256))
            assert seen[-2:] == [
                ("rotate_quantize", 4, None, (tokens, 256, 128), False),
                ("quantized_linear", 4, 4, (tokens, 8, 256, 128), False),
            ]
