"""Providers of this project's own: each is checked against float64 at the shape that is timed."""

from __future__ import annotations

from functools import lru_cache

import torch

from benchmarks.measuring.case import Case, Job, Provider
from benchmarks.measuring.gpu import Work
from benchmarks.measuring.truth import check_activation, check_product, check_weight_only
from dvdq_kernels import QuantizedActivation, QuantizedWeight, quantize_weight, quantized_linear, rotate_quantize
from dvdq_reference.spec.recipe import DEFAULT_BLOCK, ActivationRule, Rotation, WeightRule

ROTATION = Rotation("full")
# Times do not depend on which grid of a row it is, and this one is found at once.
WEIGHT = WeightRule(4, "minmax")
RULES = {
    "W4A8 token": ActivationRule(8),
    "W4A4 token": ActivationRule(4),
    f"W4A8 block {DEFAULT_BLOCK}": ActivationRule(8, DEFAULT_BLOCK),
    f"W4A4 block {DEFAULT_BLOCK}": ActivationRule(4, DEFAULT_BLOCK),
}


def linears(backend: str) -> tuple[Provider, ...]:
    """The product alone on activations that are codes already, and the whole: rotation, codes, product."""
    products = [
        Provider(
            f"dvdq-kernels {backend}", f"{name}, product alone", lambda case, rule=rule: product(case, rule, backend)
        )
        for name, rule in RULES.items()
    ]
    wholes = [
        Provider(f"dvdq-kernels {backend}", name, lambda case, rule=rule: whole(case, rule, backend))
        for name, rule in RULES.items()
    ]
    return (*products, *wholes)


def product(case: Case, rule: ActivationRule, backend: str) -> Job:
    """Bytes: codes, packed weight, output."""
    activation, weight = _operands(case, rule, backend)
    unit = _unit(activation)
    return Job(
        lambda: quantized_linear(activation, weight, rule, rotation=ROTATION, backend=backend),
        lambda out: check_product(out, activation, weight),
        case.work(x_bytes=0.5 if unit == "int4" else 1, weight_bytes=0.5, unit=unit),
    )


def whole(case: Case, rule: ActivationRule, backend: str) -> Job:
    """Bytes: activations, packed weight, output; its codes are an intermediate."""
    activation, weight = _operands(case, rule, backend)
    return Job(
        lambda: quantized_linear(case.x, weight, rule, rotation=ROTATION, backend=backend),
        lambda out: check_product(out, activation, weight),
        case.work(x_bytes=2, weight_bytes=0.5, unit=_unit(activation)),
    )


def _unit(activation: QuantizedActivation) -> str:
    """What multiplies these codes: two of them a byte are for INT4 tensor cores."""
    return "int4" if activation.codes.dtype == torch.uint8 else "int8"


def _operands(case: Case, rule: ActivationRule, backend: str) -> tuple[QuantizedActivation, QuantizedWeight]:
    activation = rotate_quantize(case.x, rule, rotation=ROTATION, backend=backend)
    check_activation(activation, case.x)
    return activation, _quantized(case, ROTATION, backend)


@lru_cache(maxsize=2)
def _quantized(case: Case, rotation: Rotation | None, backend: str) -> QuantizedWeight:
    return quantize_weight(case.weight, WEIGHT, rotation=rotation, backend=backend)


def quantizers(backend: str) -> tuple[Provider, ...]:
    """Rotation and quantization in one pass."""
    return tuple(
        Provider(
            f"dvdq-kernels {backend}",
            name.removeprefix("W4"),
            lambda case, rule=rule: Job(
                lambda: rotate_quantize(case.x, rule, rotation=ROTATION, backend=backend),
                lambda found: check_activation(found, case.x),
                quantizing(case, rule),
            ),
        )
        for name, rule in RULES.items()
    )


def quantizing(case: Case, rule: ActivationRule) -> Work:
    """Activations are read; codes, scales and one sum a token are written."""
    tokens, channels = case.shape
    blocks = 1 if rule.block is None else channels // rule.block
    return Work(tokens * (3 * channels + 4 * blocks + 4))


def weight_only(backend: str) -> tuple[Provider, ...]:
    """W4A16: the product alone, and with the rotation that a recipe's modulation layers have."""

    def build(case: Case, rotation: Rotation | None) -> Job:
        weight = _quantized(case, rotation, backend)
        return Job(
            lambda: quantized_linear(case.x, weight, None, rotation=rotation, backend=backend),
            lambda out: check_weight_only(out, case.x, weight),
            case.work(x_bytes=2, weight_bytes=0.5, unit="bf16"),
        )

    return (
        Provider(f"dvdq-kernels {backend}", "W4A16", lambda case: build(case, None)),
        Provider(f"dvdq-kernels {backend}", "W4A16, rotated", lambda case: build(case, ROTATION)),
    )
