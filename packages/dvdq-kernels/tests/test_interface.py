"""What the package promises before any arithmetic: its names, its registry, its errors, its operators."""

from __future__ import annotations

import subprocess
import sys
from inspect import signature
from types import SimpleNamespace

import pytest
import torch

import dvdq_kernels as kernels
from dvdq_kernels import refusals
from dvdq_kernels.backend import Backend, Preference
from dvdq_kernels.call import Call, Place
from dvdq_kernels.ops import OPERATORS
from dvdq_kernels.registry import operators, registered, registry
from dvdq_kernels.selection import select
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

CPU = Place("cpu")


def weight(
    rule: WeightRule | None = None, rotation: Rotation | None = None, backend: str = "auto"
) -> kernels.QuantizedWeight:
    values = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    return kernels.quantize_weight(values, rule or WeightRule(), rotation=rotation, backend=backend)


def test_public_names() -> None:
    assert set(kernels.__all__) == {
        "QuantizedActivation",
        "QuantizedWeight",
        "backends",
        "dequantize",
        "quantize_weight",
        "quantized_linear",
        "rotate",
        "rotate_quantize",
    }


def test_the_folder_and_the_function_have_one_name() -> None:
    import dvdq_kernels.backends.torch as torch_backend
    from dvdq_kernels import backends

    assert backends()["torch"] is None
    assert torch_backend.BACKEND is registry()["torch"]


def test_import_needs_no_backend_but_torch() -> None:
    """What backends say of themselves needs nothing of theirs either."""
    block = "import sys; sys.modules.update(dict.fromkeys(['cupy', 'llvmlite', 'numba', 'triton'])); "
    subprocess.run([sys.executable, "-c", block + "import dvdq_kernels; dvdq_kernels.backends()"], check=True)


def test_backends_say_why_not() -> None:
    state = kernels.backends()
    assert state["torch"] is None
    if not torch.cuda.is_available():
        assert "no CUDA device" in str(state["triton"])


@pytest.mark.parametrize(("name", "module"), [("cupy", "cupy"), ("cpu", "numba"), ("triton", "triton")])
def test_what_is_not_installed_is_said(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f"{module} is not installed" in str(kernels.backends()[name])


def test_a_backend_may_have_some_operations_alone() -> None:
    lazy = Backend("lazy", lambda: pytest.fail("loaded"), lambda: None, offers=frozenset({"quantize_weight"}))
    with registered(lazy):
        assert select(Call("quantize_weight", CPU), "lazy").backend is lazy
        with pytest.raises(DvdqError, match="has quantize_weight alone"):
            kernels.rotate(torch.randn(2, 4), Rotation(), backend="lazy")


def test_a_backend_may_have_some_grids_alone() -> None:
    clip_search = WeightRule(4, "clip-search", symmetric=True)
    lazy = Backend("lazy", lambda: pytest.fail("loaded"), lambda: None, grids=frozenset({"bgr", "minmax"}))
    with registered(lazy):
        assert select(Call("quantize_weight", CPU, "minmax"), "lazy").backend is lazy
        assert select(Call("dequantize", CPU), "lazy").backend is lazy
        with pytest.raises(DvdqError, match=r"expected torch, got lazy \(has the grids bgr, minmax, not clip-search\)"):
            kernels.quantize_weight(torch.randn(2, 4), clip_search, backend="lazy")
    selection = select(Call("quantize_weight", CPU, "clip-search"))
    assert selection.backend.name == "torch"
    assert selection.refused["cpu"]
    assert torch.equal(weight(clip_search).qweight, weight(clip_search, backend="torch").qweight)


def test_a_backend_without_a_rotation_gets_a_rotated_weight() -> None:
    seen = []
    torch_backend = operators("torch")

    def quantize_weight(weight: torch.Tensor, *rest: object) -> tuple[torch.Tensor, ...]:
        seen.append(weight)
        return torch_backend.quantize_weight(weight, *rest)

    lazy = SimpleNamespace(quantize_weight=quantize_weight)
    weight = torch.randn(3, 256)
    with registered(Backend("lazy", lambda: lazy, lambda: None, offers=frozenset({"quantize_weight"}))):
        kernels.quantize_weight(weight, WeightRule(), rotation=Rotation(), backend="lazy")
    assert torch.equal(seen[0], kernels.rotate(weight, Rotation()))


@pytest.mark.parametrize(("installed", "chosen"), [("numba", "cpu"), ("nothing", "torch")])
def test_auto_says_what_it_chose_and_refused(installed: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "is_installed", lambda module: module == installed)
    selection = select(Call("rotate", CPU))
    order = ["triton", "cupy", "cpu", "torch"]
    assert selection.backend.name == chosen
    assert list(selection.refused) == order[: order.index(chosen)]
    assert selection.reason == "by rule: triton, cupy, cpu, torch"


@pytest.mark.parametrize("name", ["triton", "cupy", "nonsense"])
def test_an_absent_backend_is_an_error_that_names_the_present(name: str) -> None:
    with pytest.raises(DvdqError, match="torch") as error:
        kernels.rotate(torch.randn(2, 4), Rotation(), backend=name)
    assert name in str(error.value.got)


def test_a_backend_may_refuse_a_device() -> None:
    only_cuda = Backend(
        "only-cuda", lambda: pytest.fail("loaded"), lambda: None, device_types=lambda: frozenset({"cuda"})
    )
    with registered(only_cuda), pytest.raises(DvdqError, match="runs on cuda, not on cpu"):
        kernels.rotate(torch.randn(2, 4), Rotation(), backend="only-cuda")
    assert "only-cuda" not in kernels.backends()
    with pytest.raises(DvdqError, match="not taken"), registered(Backend("torch", only_cuda.load, only_cuda.refusal)):
        pass


def test_a_backend_may_refuse_a_dtype() -> None:
    """By name it is an error, ``"auto"`` takes the next, and for all operators alike."""
    right, rule = operators("torch"), ActivationRule(4, 128)

    def limits(call: Call) -> str | None:
        return "computes in float32" if call.dtype == torch.float64 else None

    narrow = Backend("narrow", lambda: right, limits=limits, preference=lambda call: Preference(99))
    with registered(narrow):
        assert select(Call("rotate", CPU, dtype=torch.float32)).backend is narrow
        wide = select(Call("rotate", CPU, dtype=torch.float64))
        assert (wide.backend is not narrow, wide.refused["narrow"]) == (True, "computes in float32")
        x, qweight = torch.randn(2, 256, dtype=torch.float64), weight()
        for call in (
            lambda backend: kernels.rotate(x, Rotation(), backend=backend),
            lambda backend: kernels.quantize_weight(x, WeightRule(4, "minmax"), backend=backend),
            lambda backend: kernels.rotate_quantize(x, rule, backend=backend),
            lambda backend: kernels.quantized_linear(x, qweight, rule, backend=backend),
            lambda backend: kernels.quantized_linear(x, qweight, None, backend=backend),
        ):
            call("auto")
            with pytest.raises(DvdqError, match=r"narrow \(computes in float32\)"):
                call("narrow")


NAN_ROW = torch.ones(3, 4).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.ones(4), r"\[out, in\].*\[4\]"),
        (torch.ones(2, 4, dtype=torch.int8), "int8"),
        (torch.ones(0, 4), "not empty"),
        (NAN_ROW, "row 1"),
        (torch.full((2, 4), 1e39, dtype=torch.float64), "row 0"),
        (torch.ones(2, 5), "even number"),
    ],
)
def test_bad_weights(bad: torch.Tensor, message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        kernels.quantize_weight(bad, WeightRule())


def test_bad_arguments() -> None:
    with pytest.raises(DvdqError, match="divides 6"):
        kernels.quantize_weight(torch.ones(2, 6), WeightRule(4, "bgr", 4))
    for rotation in (Rotation("block"), Rotation("regular")):
        with pytest.raises(DvdqError, match="multiple of 256"):
            kernels.rotate(torch.ones(2, 12), rotation)
    with pytest.raises(DvdqError, match="got 7"):
        kernels.rotate(torch.ones(2, 7), Rotation("full"))
    with pytest.raises(DvdqError, match="floats"):
        kernels.rotate_quantize(torch.ones(2, 8, dtype=torch.int32), ActivationRule())
    with pytest.raises(DvdqError, match="divides 8"):
        kernels.rotate_quantize(torch.ones(2, 8), ActivationRule(4, 3))
    with pytest.raises(DvdqError, match="the weight's"):
        kernels.quantized_linear(torch.ones(2, 256), weight(), None, rotation=Rotation())
    with pytest.raises(DvdqError, match=r"\[\.\.\., 256\]"):
        kernels.quantized_linear(torch.ones(2, 255), weight(), None)
    with pytest.raises(DvdqError, match="bias"):
        kernels.quantized_linear(torch.ones(2, 256), weight(), None, bias=torch.ones(7))
    shared = kernels.rotate_quantize(torch.ones(2, 256), ActivationRule(4))
    with pytest.raises(DvdqError, match="bits=8"):
        kernels.quantized_linear(shared, weight(), ActivationRule(8))
    with pytest.raises(DvdqError, match="got 8 bits, 256 channels"):
        kernels.rotate_quantize(torch.ones(2, 256), ActivationRule(8), packed=True)
    with pytest.raises(DvdqError, match="got 4 bits, 7 channels"):
        kernels.rotate_quantize(torch.ones(2, 7), ActivationRule(4), packed=True)
    packed = kernels.rotate_quantize(torch.ones(2, 128), ActivationRule(4), packed=True)
    with pytest.raises(DvdqError, match=r"\[\.\.\., 256\], got uint8 \[2, 64\]"):
        kernels.quantized_linear(packed, weight(), ActivationRule(4))


@pytest.mark.parametrize("packed", [False, True])
def test_what_takes_no_packed_codes_refuses_them(packed: bool) -> None:
    rule = ActivationRule(4, 64)
    right = operators("torch")
    with registered(Backend("bytes", lambda: right, lambda: None)):
        shared = kernels.rotate_quantize(torch.randn(3, 256), rule, packed=packed)
        assert shared.packed == packed
        if not packed:
            kernels.quantized_linear(shared, weight(), rule, backend="bytes")
            return
        with pytest.raises(DvdqError, match=r"expected torch, got bytes \(takes activation codes a byte each"):
            kernels.quantized_linear(shared, weight(), rule, backend="bytes")
        with pytest.raises(DvdqError, match="not two a byte"):
            kernels.rotate_quantize(torch.randn(3, 256), rule, packed=True, backend="bytes")


def test_a_backend_gets_the_codes_that_its_product_wants() -> None:
    x, right = torch.randn(3, 256), operators("torch")
    narrow = Backend("narrow", lambda: right, lambda: None, takes_packed=True, packs=lambda place, bits: bits <= 4)
    with registered(narrow):
        assert kernels.rotate_quantize(x, ActivationRule(4), backend="narrow").packed
        assert not kernels.rotate_quantize(x, ActivationRule(4), backend="narrow", packed=False).packed
        assert not kernels.rotate_quantize(x, ActivationRule(8), backend="narrow").packed
        assert not kernels.rotate_quantize(x[:, :7], ActivationRule(4), backend="narrow").packed
        assert not kernels.rotate_quantize(x, ActivationRule(4)).packed


@pytest.mark.parametrize("name", kernels.backends())
def test_a_backend_has_operators_as_they_are_stated(name: str) -> None:
    """Their names, and each one's parameters, in order and without defaults, but for the backend's name."""
    backend = registry()[name]
    try:
        functions = backend.load()
    except ImportError as error:
        pytest.skip(str(error))
    offered = {name for name in OPERATORS if backend.offers is None or OPERATION.get(name, name) in backend.offers}
    assert set(functions.__all__) == offered
    for name in offered:
        *stated, last = signature(OPERATORS[name]).parameters.values()
        found = signature(getattr(functions, name)).parameters.values()
        assert last.name == "backend"
        assert [(p.name, p.default) for p in found] == [(p.name, p.default) for p in stated], name


OPERATION = {"integer_linear": "quantized_linear", "float_linear": "quantized_linear"}
"""The public function that an operator serves, where it has another name."""


def operator_calls() -> list[tuple[str, tuple[object, ...]]]:
    x = torch.randn(3, 7, 256)
    rule = ActivationRule(4, 64)
    act = kernels.rotate_quantize(x, rule)
    row, grouped = weight(), weight(WeightRule(8, "minmax", 64, symmetric=True))
    grids = [(q.qweight, q.scale, q.zero) for q in (row, grouped)]
    codes = (act.codes, act.scale, act.token_sum)
    packed = (kernels.rotate_quantize(x, rule, packed=True).codes, act.scale, act.token_sum)
    return [
        ("quantize_weight", (torch.randn(4, 256), 4, "bgr", 64, False, 3, 0.0, "torch")),
        ("quantize_weight", (torch.randn(4, 256), 4, "clip-search", None, True, 6, 1e-3, "torch")),
        ("quantize_weight", (torch.randn(4, 256), 8, "minmax", None, True, 6, 1e-3, "torch")),
        ("dequantize", (*grids[0], 4, 256, "torch")),
        ("rotate", (x.bfloat16(), "full", 3, "torch")),
        ("rotate", (x, "regular", None, "torch")),
        ("rotate_quantize", (x, 8, None, "absmax", None, None, False, "torch")),
        ("rotate_quantize", (x, 4, 128, "gaussian", "block", None, True, "torch")),
        ("integer_linear", (*codes, *grids[0], torch.randn(8), 4, 4, torch.float32, "torch")),
        ("integer_linear", (*packed, *grids[0], None, 4, 4, torch.float32, "auto")),
        ("integer_linear", (*codes, *grids[1], None, 4, 8, torch.bfloat16, "torch")),
        ("float_linear", (x, *grids[0], None, 4, "full", None, "torch")),
    ]


@pytest.mark.parametrize(("name", "args"), operator_calls(), ids=lambda value: value if isinstance(value, str) else "")
def test_operator(name: str, args: tuple[object, ...]) -> None:
    """Schema, fake and aliasing, as torch itself checks them."""
    torch.library.opcheck(getattr(torch.ops.dvdq, name).default, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("packed", [None, True])
def test_packed_codes_compile_without_a_break(packed: bool | None) -> None:
    torch.compiler.reset()
    qweight, rule, right = weight(), ActivationRule(4, 128), operators("torch")

    def layer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = kernels.rotate_quantize(x, rule, backend="narrow", packed=packed)
        return shared.values, kernels.quantized_linear(shared, qweight, rule, backend="narrow")

    with registered(Backend("narrow", lambda: right, lambda: None, takes_packed=True, packs=lambda place, bits: True)):
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        for tokens in (3, 5):
            x = torch.randn(tokens, 256)
            torch._dynamo.mark_dynamic(x, 0)
            assert all(torch.equal(got, want) for got, want in zip(compiled(x), layer(x), strict=True))


@pytest.mark.parametrize("rule", [None, ActivationRule(8), ActivationRule(4, 128)], ids=str)
@pytest.mark.parametrize("rotation", [None, Rotation("full", 1)], ids=str)
def test_compiles_without_a_break(rule: ActivationRule | None, rotation: Rotation | None) -> None:
    torch.compiler.reset()
    qweight = weight(rotation=rotation)
    x, bias = torch.randn(2, 3, 256), torch.randn(8)

    def layer(x: torch.Tensor, qweight: kernels.QuantizedWeight) -> torch.Tensor:
        y = kernels.quantized_linear(x, qweight, rule, rotation=rotation, bias=bias)
        if rule is None:
            return y
        return y + kernels.rotate_quantize(x, rule, rotation=rotation).token_sum.unsqueeze(-1)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        assert torch.equal(compiled(x, qweight), layer(x, qweight))


def test_inference_mode_and_parameters() -> None:
    """Constants cached under inference mode serve outside it, and a bias that is a parameter is only read."""
    rotation, rule = Rotation("full", seed=77), ActivationRule(4, 128)
    bias = torch.nn.Parameter(torch.ones(8))
    qweight = weight(rotation=rotation)
    x = torch.randn(2, 256)
    with torch.inference_mode():
        first = kernels.quantized_linear(x, qweight, rule, rotation=rotation, bias=bias)
    with torch.no_grad():
        second = kernels.quantized_linear(x, qweight, rule, rotation=rotation, bias=bias)
    assert torch.equal(first, second)


def test_a_token_that_is_not_finite_spoils_only_itself() -> None:
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    good = kernels.quantized_linear(x, weight(), ActivationRule(8))
    x[1, 4] = torch.inf
    bad = kernels.quantized_linear(x, weight(), ActivationRule(8))
    assert not bad[1].isfinite().any()
    assert torch.equal(bad[[0, 2]], good[[0, 2]])
