"""Providers that others made, each as its own documentation says that it is fastest; no linear here has a bias.

Imports are inside: a peer that is not installed, or refuses the device, raises there. Its output is compared loosely
with a float64 product, so that nothing is timed that computes something else.
"""

from __future__ import annotations

import math

import torch

from benchmarks.measuring.case import Case, Job, Provider
from benchmarks.measuring.gpu import Work
from benchmarks.measuring.truth import sample

# Twice the relative error of the coarsest 4-bit grids of normal values here, min-max of a whole row of 3072 weights and
# the largest of as many activations: their mean squared errors are 0.0187 and 0.0240 of the mean square.
LARGEST_ERROR = 2 * math.sqrt(0.0187 + 0.0240)


def compare(case: Case, out: torch.Tensor) -> None:
    """Raises if some tokens of ``X Wᵀ`` are off by more than ``LARGEST_ERROR``, relative to their norm."""
    some = sample(out.shape[0], out.device)
    truth = case.x[some].double() @ case.weight.double().t()
    error = float((out[some].double() - truth).norm() / truth.norm())
    if not error <= LARGEST_ERROR:
        raise RuntimeError(f"its output is off by {error:.2f} of the norm")


def plain_linear(case: Case) -> torch.nn.Linear:
    """A layer in bfloat16 with the case's weight."""
    out_features, in_features = case.weight.shape
    linear = torch.nn.Linear(in_features, out_features, bias=False, dtype=torch.bfloat16, device=case.device)
    linear.weight.copy_(case.weight)
    return linear.requires_grad_(False)


def copy(case: Case, work: Work) -> Job:
    """A device-to-device copy that reads and writes as many bytes as ``work``."""
    source = torch.randint(-128, 128, (work.bytes // 2,), dtype=torch.int8, device=case.device)
    target = torch.empty_like(source)

    def check(out: torch.Tensor) -> None:
        if not torch.equal(out, source):
            raise RuntimeError("it is not a copy")

    return Job(lambda: target.copy_(source), check, work)


def _bf16(case: Case) -> Job:
    return Job(
        lambda: torch.nn.functional.linear(case.x, case.weight),
        lambda out: compare(case, out),
        case.work(x_bytes=2, weight_bytes=2, unit="bf16"),
    )


def _int_mm(case: Case) -> Job:
    """cuBLAS's int8 product of random codes, int32 out: no scale, no rotation, no packed weight."""
    generator = torch.Generator(case.device).manual_seed(1)
    v, u = (
        torch.randint(-128, 128, t.shape, generator=generator, dtype=torch.int8, device=case.device)
        for t in (case.x, case.weight)
    )

    def check(out: torch.Tensor) -> None:
        some = sample(out.shape[0], out.device)
        if not torch.equal(out[some].double(), v[some].double() @ u.double().t()):
            raise RuntimeError("its sums are not exact")

    return Job(lambda: torch._int_mm(v, u.t()), check, case.work(x_bytes=1, weight_bytes=1, out_bytes=4))


def _torchao(case: Case) -> Job:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    layer = torch.nn.Sequential(plain_linear(case))
    quantize_(layer, Int8DynamicActivationInt8WeightConfig())
    # Every layer is compiled anew; otherwise the compiler takes them for one that changes, and gives up after a few.
    torch.compiler.reset()
    compiled = torch.compile(layer, mode="max-autotune-no-cudagraphs", fullgraph=True, dynamic=False)
    return Job(lambda: compiled(case.x), lambda out: compare(case, out), case.work(x_bytes=2, weight_bytes=1))


def _minmax(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8, Δ and z of each row, as ``(q - z) Δ``."""
    low, high = weight.float().aminmax(dim=1, keepdim=True)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    codes = (weight.float() / scale + zero).round_().clamp_(0, 15).to(torch.uint8)
    return codes, scale.to(torch.bfloat16), zero.to(torch.bfloat16)


def _gemlite_a8w4(case: Case) -> Job:
    """Activations in float8, its default; a scale a row, applied after the product."""
    from gemlite.helper import A8W4_HQQ_INT_dynamic

    make = A8W4_HQQ_INT_dynamic(device=str(case.device), dtype=torch.bfloat16, post_scale=True)
    layer = make.from_weights(*_minmax(case.weight))
    return Job(lambda: layer(case.x), lambda out: compare(case, out), case.work(x_bytes=2, weight_bytes=0.5))


def _gemlite_a16w4(case: Case) -> Job:
    from gemlite.helper import A16W4_HQQ_INT

    layer = A16W4_HQQ_INT(device=str(case.device), dtype=torch.bfloat16).from_weights(*_minmax(case.weight))
    work = case.work(x_bytes=2, weight_bytes=0.5, unit="bf16")
    return Job(lambda: layer(case.x), lambda out: compare(case, out), work)


def _orbitquant(case: Case) -> Job:
    from orbitquant.config import OrbitQuantConfig
    from orbitquant.layers import OrbitQuantLinear

    config = OrbitQuantConfig(weight_bits=4, activation_bits=4)
    layer = OrbitQuantLinear.from_linear(plain_linear(case), config=config, module_name="linear")
    layer(case.x)
    # It keeps the codes of the last tensor object that it saw: a new view is a new object.
    return Job(
        lambda: layer(case.x.view_as(case.x)),
        lambda out: compare(case, out),
        case.work(x_bytes=2, weight_bytes=0.5),
        note=f"ran as {layer.last_effective_runtime_mode}",
    )


def _nf4(case: Case) -> Job:
    from bitsandbytes.nn import Linear4bit, Params4bit

    out_features, in_features = case.weight.shape
    layer = Linear4bit(
        in_features, out_features, bias=False, compute_dtype=torch.bfloat16, compress_statistics=False, quant_type="nf4"
    )
    layer.weight = Params4bit(
        case.weight.cpu(), requires_grad=False, compress_statistics=False, quant_type="nf4", module=layer
    )
    layer.to(case.device)
    work = case.work(x_bytes=2, weight_bytes=0.5, unit="bf16")
    return Job(lambda: layer(case.x), lambda out: compare(case, out), work)


BF16 = Provider("bf16", "", _bf16, "torch")
INT_MM = Provider("_int_mm", "", _int_mm, "torch")
TORCHAO = Provider("torchao", "W8A8", _torchao, "torchao")
GEMLITE_A8W4 = Provider("gemlite", "A8W4", _gemlite_a8w4, "gemlite")
GEMLITE_A16W4 = Provider("gemlite", "A16W4", _gemlite_a16w4, "gemlite")
ORBITQUANT = Provider("orbitquant", "W4A4", _orbitquant, "orbitquant")
NF4 = Provider("bitsandbytes", "NF4", _nf4, "bitsandbytes")
