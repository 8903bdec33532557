"""The CPU backend's loops: the tilings of every instruction set run here, any shape, any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dvdq_kernels as kernels
from conformance import cases, checks
from conformance.cases import LinearCase
from dvdq_kernels.registry import backends, forget
from dvdq_reference.oracle import bounds, linear, packing
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

if backends()["cpu"] is not None:
    pytest.skip(str(backends()["cpu"]), allow_module_level=True)

from dvdq_kernels.backends.cpu import activation, instruction_sets
from dvdq_kernels.backends.cpu import linear as products
from dvdq_kernels.backends.cpu import weight as decoding
from dvdq_kernels.backends.cpu.instruction_sets import ALL, AVX2, PORTABLE, InstructionSet, at_hand, runs_here

CPU = partial(kernels.quantized_linear, backend="cpu")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    forget()
    yield
    torch.set_num_threads(threads)
    forget()


def tiled_as(instructions: InstructionSet) -> InstructionSet:
    """With its registers and tiles, but arithmetic that this processor has."""
    processor = AVX2.processor if runs_here(AVX2) else PORTABLE.processor
    shape = {"width": instructions.width, "tile": instructions.tile}
    return replace(PORTABLE, name=f"tiled as {instructions.name}", processor=processor, **shape)


def weight(
    rule: WeightRule, out_features: int, in_features: int, rotation: Rotation | None = None
) -> kernels.QuantizedWeight:
    """Rows of any codes and scales; torch's, which is not what is tested here."""
    values = cases.gaussian(out_features, in_features, seed=in_features)
    return kernels.quantize_weight(values, rule, rotation=rotation, backend="torch")


Case = tuple[WeightRule, ActivationRule, Rotation, int]
CASES: list[Case] = [
    (WeightRule(4, "minmax", 24), ActivationRule(8, 16), Rotation("full", 3), 96),
    (WeightRule(8, "minmax", symmetric=True), ActivationRule(4), Rotation("full", 1), 280),
]


def outputs(cases_: list[Case]) -> list[torch.Tensor]:
    """What no instruction set may change by a bit: sums are exact, and float32 is added in one order."""
    results = []
    for rule, activation_rule, rotation, in_features in cases_:
        qweight = weight(rule, 83, in_features, rotation)
        x = cases.activations(13, in_features, torch.float32)
        quantized = kernels.rotate_quantize(x, activation_rule, rotation=rotation, backend="cpu")
        bias = cases.gaussian(83, seed=2)
        product = CPU(quantized, qweight, activation_rule, rotation=rotation, bias=bias)
        results += [quantized.codes, quantized.scale, quantized.token_sum, product]
        results.append(kernels.rotate(x, rotation, backend="cpu"))
        results.append(kernels.dequantize(qweight, backend="cpu"))
    return results


TILINGS = [tiled_as(instructions) for instructions in ALL if instructions is not PORTABLE]


# Wide tiles take seconds to compile where registers are not as wide: one case each, and both of the narrowest.
@pytest.mark.parametrize(
    ("tiling", "cases_"),
    list(zip(TILINGS, (CASES[:1], CASES[1:], CASES[:1], CASES), strict=True)),
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_tiling_gives_the_same_bits(
    tiling: InstructionSet, cases_: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outputs(cases_)
    monkeypatch.setattr(instruction_sets, "ALL", (tiling,))
    forget()
    assert at_hand() is tiling
    assert all(torch.equal(a, b) for a, b in zip(outputs(cases_), expected, strict=True))


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda tiling: tiling.name)
def test_every_tiling_multiplies_few_tokens(tiling: InstructionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "ALL", (tiling,))
    forget()
    case = LinearCase(WeightRule(4, "minmax", 128), None, None, 256, 3, torch.float32)
    checks.check_linear("cpu", "cpu", case)


def test_a_narrower_set_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outputs(CASES[:1])
    monkeypatch.setenv(instruction_sets.VARIABLE, "portable")
    forget()
    assert at_hand() is PORTABLE
    assert all(torch.equal(a, b) for a, b in zip(outputs(CASES[:1]), expected, strict=True))


def test_a_set_that_is_not_here_is_an_error_that_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = "neon" if runs_here(AVX2) else "avx2"
    for name in ("mmx", foreign):
        monkeypatch.setenv(instruction_sets.VARIABLE, name)
        forget()
        with pytest.raises(DvdqError, match=f"DVDQ_CPU_INSTRUCTIONS: expected .*portable, got {name}"):
            kernels.rotate(torch.ones(2, 256), Rotation(), backend="cpu")


def test_threads_and_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    qweight, x = weight(WeightRule(4, "minmax"), 83, 256), cases.activations(3, 256, torch.float32)

    def all_outputs() -> list[torch.Tensor]:
        return [*outputs(CASES), CPU(x, qweight, None)]

    torch.set_num_threads(1)
    expected = all_outputs()
    for module in (products, activation, decoding):
        monkeypatch.setattr(module, "_WORTH", 1)
    monkeypatch.setattr(products, "_WORTH_READING", 1)
    monkeypatch.setattr(products, "_l2_bytes", lambda: 1)
    forget()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(all_outputs(), expected, strict=True)), f"{threads} threads"


@pytest.mark.parametrize(
    ("told", "size"),
    [("1024K\n", 2**20), ("32K", 2**19), ("16384K", 2**21), ("2048", 2**19), ("", 2**19), ("1M", 2**19), (None, 2**19)],
)
def test_tokens_of_a_tile_follow_the_second_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, size: int
) -> None:
    """A size that is not told, or in another unit, is taken to be that of a small cache."""
    path = tmp_path / "size"
    if told is not None:
        path.write_text(told)
    monkeypatch.setattr(products, "_L2", path)
    assert products._l2_bytes.__wrapped__() == size


def test_threads_that_openmp_does_not_grant_leave_nothing_undone() -> None:
    script = (
        "import torch, dvdq_kernels as kernels; from dvdq_reference.spec.recipe import Rotation; "
        "torch.set_num_threads(3); x = torch.randn(512, 1536, generator=torch.Generator().manual_seed(0)); "
        "a, b = (kernels.rotate(x, Rotation(), backend=name) for name in ('cpu', 'torch')); "
        "torch.testing.assert_close(a, b)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "OMP_THREAD_LIMIT": "2"})


# Without a rule float64 is torch's own product, whose bits may depend on strides.
@pytest.mark.parametrize(
    ("rule", "dtype"),
    [(ActivationRule(8, 64), dtype) for dtype in cases.DTYPES] + [(None, dtype) for dtype in cases.DTYPES[1:]],
    ids=str,
)
def test_how_activations_lie_changes_nothing(rule: ActivationRule | None, dtype: torch.dtype) -> None:
    qweight = weight(WeightRule(4, "minmax"), 37, 256)
    x = cases.activations(6, 512, dtype)
    for view in (x[:, ::2], x[::2, 100:356], x[:1, :256].expand(4, 256), x.view(2, 3, 512)[:, 1:, 256:], x[:0, :256]):
        got = CPU(view, qweight, rule)
        assert torch.equal(got, CPU(view.clone(memory_format=torch.contiguous_format), qweight, rule))
        assert got.shape == (*view.shape[:-1], 37)
        assert got.dtype == dtype


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Tokens, outputs, even input channels, and a block and a group that divide these."""
    in_features = 2 * draw(st.integers(1, 60))
    block, group = (draw(st.sampled_from(divisors(in_features))) for _ in range(2))
    return draw(st.integers(1, 9)), draw(st.integers(1, 70)), in_features, block, group


@settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(shapes(), st.sampled_from([3, 4, 8]), st.integers(3, 8), st.booleans(), st.booleans(), st.integers(0, 99))
def test_any_shape_is_the_oracles(
    shape: tuple[int, int, int, int, int], bits: int, x_bits: int, symmetric: bool, with_bias: bool, seed: int
) -> None:
    tokens, out_features, in_features, block, group = shape
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (out_features, in_features))
    parts = out_features, in_features // group
    scale = (2.0 ** rng.uniform(-4, 4, parts)).astype(np.float32)
    zero = np.full(parts, 2 ** (bits - 1)) if symmetric else rng.integers(-50, 50, parts)
    rule = WeightRule(bits, "minmax", None if group == in_features else group, symmetric=symmetric)
    stored = torch.from_numpy(packing.pack(codes, bits)), torch.from_numpy(scale)
    offsets = None if symmetric else torch.from_numpy(zero.astype(np.int16))
    qweight = kernels.QuantizedWeight(*stored, offsets, rule, in_features)
    x = torch.from_numpy(rng.standard_normal((tokens, in_features))).float()
    bias = torch.from_numpy(rng.standard_normal(out_features)).float() if with_bias else None
    grid = checks.stored(qweight)[1]
    shift = None if bias is None else bias.double().numpy()
    for activation_rule in (ActivationRule(x_bits, None if block == in_features else block), None):
        with checks.poisoned():
            got = CPU(x, qweight, activation_rule, bias=bias)
        given_ = x.double().numpy(), codes, grid, activation_rule
        truth, allowed = linear.quantized_linear(*given_, bias=shift), bounds.linear_float32(*given_, bias=shift)
        allowed += torch.finfo(torch.float32).eps * np.abs(truth)
        assert (np.abs(got.double().numpy() - truth) <= allowed).all(), activation_rule


@settings(derandomize=True, deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(shapes(), st.sampled_from([3, 4, 8]), st.integers(0, 99))
def test_any_shape_is_decoded_exactly(shape: tuple[int, int, int, int, int], bits: int, seed: int) -> None:
    _, out_features, in_features, _, group = shape
    values = torch.from_numpy(np.random.default_rng(seed).standard_normal((out_features, in_features))).float()
    rule = WeightRule(bits, "minmax", None if group == in_features else group)
    qweight = kernels.quantize_weight(values, rule, backend="cpu")
    decoded = kernels.dequantize(qweight, backend="cpu")
    assert torch.equal(decoded, kernels.dequantize(qweight, backend="torch"))


RULES: list[ActivationRule | None] = [None, ActivationRule(8), ActivationRule(4, 128)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_it_compiles_without_a_break(rule: ActivationRule | None) -> None:
    torch.compiler.reset()
    rotation = Rotation("full", 1)
    qweight, bias = weight(WeightRule(), 24, 256, rotation), cases.gaussian(24, seed=1)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return kernels.quantized_linear(x, qweight, rule, rotation=rotation, bias=bias, backend="cpu")

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        for tokens in (3, 5):
            x = cases.activations(tokens, 256, torch.bfloat16)
            torch._dynamo.mark_dynamic(x, 0)
            assert torch.equal(compiled(x), layer(x))
