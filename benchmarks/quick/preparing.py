"""Every kernel that the other stages start, compiled ahead: for a GPU that is not here, to files that one finds there.

Operators are called on tensors that hold nothing, which leaves launches; each is compiled as it will be looked up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import torch
from conformance import cases
from conformance.exact import WIDE, Linear

from benchmarks.measuring import workloads
from benchmarks.measuring.own import RULES, WEIGHT
from benchmarks.measuring.suite import GPU_BACKENDS
from benchmarks.quick.checks import TWO_31, important_linears
from benchmarks.quick.steps import Steps
from benchmarks.quick.timings import ACTIVATIONS, LINEARS
from dvdq_kernels.gpu import recording
from dvdq_reference.spec.recipe import DEFAULT_BLOCK, ActivationRule, Rotation, WeightRule

FULL = Rotation("full")
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32

Asked = tuple[str, tuple[Any, ...]]
"""An operator's name, and its arguments on the meta device."""


def compile_ahead(step: Steps) -> None:
    """For the GPU at hand, what an archive did not bring."""
    major, minor = torch.cuda.get_device_capability()
    step("compiling", compile_all, 10 * major + minor)


def compile_all(target: int) -> dict[str, Any]:
    """For a compute capability, on all cores: how many kernels, and what did not compile."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(partial(compile_share, target, cores), range(cores)))
    errors = sorted({error for share in found for error in share["errors"]})
    return {"kernels": sum(share["kernels"] for share in found), "errors": errors[:20]}


def compile_share(target: int, shares: int, share: int) -> dict[str, Any]:
    """Every so many-th kernel. One that does not compile is told, and the others are compiled."""
    launches = [launch for backend in GPU_BACKENDS for launch in launches_of(backend, target)]
    errors, done = [], 0
    for backend, launch in launches[share::shares]:
        try:
            import_module(f"dvdq_kernels.backends.{backend}.compilation").machine_code(launch, target)
            done += 1
        except Exception as error:
            # A compiler may fail in any way of its own.
            errors.append(f"{launch.description}: {type(error).__name__}: {error}"[:300])
    return {"kernels": done, "errors": errors}


def launches_of(backend: str, target: int) -> list[tuple[str, Any]]:
    """What a backend starts for all that is asked, each kernel and format once."""
    operators = import_module(f"dvdq_kernels.backends.{backend}.operators")
    found = {}
    for name, arguments in asked():
        with recording(target) as record:
            getattr(operators, name)(*arguments)
        for launch in record.launches:
            found[_key(backend, launch)] = (backend, launch)
    return list(found.values())


def _key(backend: str, launch: Any) -> str:
    """What its machine code depends on."""
    if backend == "cupy":
        return f"{launch.file} {launch.constants}"
    # Triton specialises sizes by whether sixteen divides them, and dtypes.
    sizes = {n: (v.dtype if isinstance(v, torch.Tensor) else v) for n, v in launch.arguments.items()}
    return f"{launch.kernel.__name__} {launch.constants} {sizes} {launch.warps} {launch.stages}"


def asked() -> Iterator[Asked]:
    """Every call of an operator: of conformance, of exact linears, of what is timed, of whole models."""
    out = cases.OUT_FEATURES
    for case in important_linears():
        channels, rule, rotation = case.in_features, case.weight, case.rotation
        yield from _weight(out, channels, rule, rotation, FLOAT32)
        yield from _linear(case.tokens, out, channels, rule, case.activation, rotation, case.dtype, FLOAT32)
    for rule in cases.WEIGHT_RULES[:5]:
        yield from _weight(out, 256, rule, None, FLOAT32)
        yield "dequantize", (*_stored(out, 256, rule), rule.bits, 256)
    for size in cases.ROTATED_SIZES:
        for rotation in (FULL, Rotation("full", seed=1)):
            yield "rotate", (_empty(4, size), rotation.kind, rotation.seed)
    for activation in cases.ACTIVATION_RULES:
        for seeded in (None, Rotation("full", seed=1)):
            yield _quantize(_empty(17, 768), activation, seeded)
    for linear in (*WIDE.values(), Linear(1100, 4096, 256), Linear(8192, 4096, 3072)):
        yield _exact(linear)
    for tokens, out_features, in_features in (*LINEARS, *TWO_31):
        yield from _weight(out_features, in_features, WEIGHT, FULL, BFLOAT16)
        for activation in RULES.values():
            yield from _linear(tokens, out_features, in_features, WEIGHT, activation, FULL, BFLOAT16, None)
    for tokens, channels in ACTIVATIONS:
        for activation in RULES.values():
            yield _quantize(_empty(tokens, channels, dtype=BFLOAT16), activation, FULL)
    for tokens in (1, 16):
        for rotation in (None, FULL):
            yield from _weight(18432, 3072, WEIGHT, rotation, BFLOAT16)
            yield from _linear(tokens, 18432, 3072, WEIGHT, None, rotation, BFLOAT16, None)
    for model in workloads.MODELS.values():
        for layer in (*model.layers, *model.modulation):
            rule = WeightRule(4, "bgr")
            yield from _weight(layer.out_features, layer.in_features, rule, FULL, BFLOAT16)
            modulates = layer in model.modulation
            for bits in () if modulates else (8, 4):
                for tokens in (model.tokens[0], 512):
                    yield from _linear(tokens, layer.out_features, layer.in_features, rule,
                                       ActivationRule(bits, DEFAULT_BLOCK), FULL, BFLOAT16, BFLOAT16)  # fmt: skip
            if modulates:
                yield from _linear(1, layer.out_features, layer.in_features, rule, None, FULL, BFLOAT16, BFLOAT16)


def _empty(*shape: int, dtype: torch.dtype = FLOAT32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _weight(
    out: int, channels: int, rule: WeightRule, rotation: Rotation | None, dtype: torch.dtype
) -> Iterator[Asked]:
    if rotation is not None:
        dtype = torch.promote_types(dtype, FLOAT32)
        yield "rotate", (_empty(out, channels, dtype=dtype), rotation.kind, rotation.seed)
    grid = rule.bits, rule.grid, rule.group_size, rule.symmetric, rule.num_bounds, rule.tolerance
    yield "quantize_weight", (_empty(out, channels, dtype=dtype), *grid)


def _stored(out: int, channels: int, rule: WeightRule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    groups = 1 if rule.group_size is None else channels // rule.group_size
    zero = None if rule.symmetric else _empty(out, groups, dtype=torch.int16)
    return _empty(out, channels // 2 if rule.bits <= 4 else channels, dtype=torch.uint8), _empty(out, groups), zero


def _quantize(x: torch.Tensor, rule: ActivationRule, rotation: Rotation | None) -> Asked:
    kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
    return "rotate_quantize", (x, rule.bits, rule.block, rule.clip, kind, seed, False)


def _linear(
    tokens: int,
    out: int,
    channels: int,
    rule: WeightRule,
    activation: ActivationRule | None,
    rotation: Rotation | None,
    dtype: torch.dtype,
    bias: torch.dtype | None,
) -> Iterator[Asked]:
    x, stored = _empty(tokens, channels, dtype=dtype), _stored(out, channels, rule)
    shift = None if bias is None else _empty(out, dtype=bias)
    kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
    if activation is None:
        yield "float_linear", (x, *stored, shift, rule.bits, kind, seed)
        return
    yield _quantize(x, activation, rotation)
    blocks = 1 if activation.block is None else channels // activation.block
    codes = _empty(tokens, channels, dtype=torch.int8), _empty(tokens, blocks), _empty(tokens)
    yield "integer_linear", (*codes, *stored, shift, activation.bits, rule.bits, dtype)


def _exact(linear: Linear) -> Asked:
    codes = _empty(linear.tokens, linear.in_features, dtype=torch.int8), _empty(linear.tokens, linear.blocks)
    grid = (linear.out_features, linear.groups)
    stored = _empty(linear.out_features, linear.in_features // 2, dtype=torch.uint8), _empty(*grid)
    zero = _empty(*grid, dtype=torch.int16) if linear.zero else None
    bias = None if linear.bias is None else _empty(linear.out_features, dtype=linear.bias)
    return "integer_linear", (*codes, _empty(linear.tokens), *stored, zero, bias, 8, 4, linear.dtype)
