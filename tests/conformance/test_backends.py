"""Every backend that can run here, on every device that it takes here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import torch

import dvdq_kernels
from conformance import cases, checks
from conformance.cases import LinearCase
from dvdq_kernels.call import Call, place_of
from dvdq_kernels.selection import select
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Grid, Rotation, WeightRule

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def places(*operations: str, grid: str | None = None, packed: bool | None = None) -> Iterator[tuple[str, str]]:
    """Backends and devices that can run these here, for a weight grid if one is named, on packed codes if asked for."""
    for name in dvdq_kernels.backends():
        for device in DEVICES:
            try:
                for operation in operations:
                    select(Call(operation, place_of(torch.device(device)), grid, packed=packed), name)
            except DvdqError:
                continue
            yield name, device


def wherever(*operations: str) -> pytest.MarkDecorator:
    """Once for every backend and device that has kernels for all ``operations``."""
    return pytest.mark.parametrize(("backend", "device"), tuple(places(*operations)))


EVERYTHING = ("quantize_weight", "dequantize", "rotate", "rotate_quantize", "quantized_linear")
everywhere = wherever(*EVERYTHING)
ROTATIONS = [r for r in cases.ROTATIONS if r is not None]


def test_no_backend_is_left_out_without_a_reason() -> None:
    ran = {name for operation in EVERYTHING for name, _ in places(operation)}
    assert ("torch", "cpu") in places(*EVERYTHING)
    for name, reason in dvdq_kernels.backends().items():
        assert name in ran or reason, f"{name} can run here and was not tested"


@pytest.mark.parametrize("grid", get_args(Grid))
def test_no_grid_is_left_out_without_a_reason(grid: str) -> None:
    assert ("torch", "cpu") in places("quantize_weight", grid=grid)
    without = set(places("quantize_weight")) - set(places("quantize_weight", grid=grid))
    for name, device in without:
        with pytest.raises(DvdqError, match=f"{name} .has the grids .*, not {grid}"):
            select(Call("quantize_weight", place_of(torch.device(device)), grid), name)


@pytest.mark.parametrize(
    ("rule", "dtype", "backend", "device"),
    [(*case, *place) for case in cases.WEIGHT_CASES for place in places("quantize_weight", grid=case[0].grid)],
    ids=str,
)
def test_weight(backend: str, device: str, rule: WeightRule, dtype: torch.dtype) -> None:
    checks.check_weight(backend, device, rule, 256, dtype)


@wherever("quantize_weight")
def test_what_codes_left(backend: str, device: str) -> None:
    checks.check_what_codes_left(backend, device)


@wherever("quantize_weight")
def test_weight_ties(backend: str, device: str) -> None:
    checks.check_weight_ties(backend, device)


@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
@pytest.mark.parametrize(
    ("rule", "backend", "device"),
    [
        (rule, *place)
        for rule in (*cases.WEIGHT_RULES[:5], cases.CLIP_RULES[0])
        for place in places("quantize_weight", grid=rule.grid)
    ],
    ids=str,
)
def test_rotated_weight(backend: str, device: str, rule: WeightRule, rotation: Rotation) -> None:
    checks.check_rotated_weight(backend, device, rule, rotation, 768)


@everywhere
@pytest.mark.parametrize("rule", cases.WEIGHT_RULES, ids=str)
def test_decoding(backend: str, device: str, rule: WeightRule) -> None:
    checks.check_dequantize(backend, device, rule, 768)
    checks.check_identity_probe(backend, device, rule)


@everywhere
@pytest.mark.parametrize("in_features", cases.ROTATED_SIZES)
@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_rotation(backend: str, device: str, rotation: Rotation, in_features: int) -> None:
    checks.check_rotation(backend, device, rotation, in_features)


@everywhere
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_a_rotation_is_rounded_to_the_nearest(
    backend: str, device: str, rotation: Rotation, dtype: torch.dtype
) -> None:
    checks.check_rotation(backend, device, rotation, 768, dtype)


@everywhere
@pytest.mark.parametrize("rotation", cases.ROTATIONS, ids=str)
@pytest.mark.parametrize("rule", cases.ACTIVATION_RULES, ids=str)
def test_activation(backend: str, device: str, rule: ActivationRule, rotation: Rotation | None) -> None:
    checks.check_activation(backend, device, rule, rotation, torch.float32)


@everywhere
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_activation_dtype(backend: str, device: str, dtype: torch.dtype) -> None:
    checks.check_activation(backend, device, ActivationRule(8, 128), Rotation("full"), dtype)


@everywhere
@pytest.mark.parametrize("case", cases.LINEAR_CASES, ids=str)
def test_linear(backend: str, device: str, case: LinearCase) -> None:
    checks.check_linear(backend, device, case)


@pytest.mark.parametrize(("backend", "device"), tuple(places("rotate_quantize", "quantized_linear", packed=True)))
def test_packed_activation(backend: str, device: str) -> None:
    checks.check_packed_activation(backend, device)


@everywhere
def test_behaviour(backend: str, device: str) -> None:
    checks.check_activation_ties(backend, device)
    checks.check_signed_scales(backend, device)
    checks.check_integer_sums(backend, device)
    checks.check_shared_activation(backend, device)
    checks.check_views(backend, device)
    checks.check_not_finite(backend, device)
    checks.check_inputs_unchanged(backend, device)
