"""Stages that say whether kernels are right: those that are most likely to run first, and Hopper's own last."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch
from conformance import cases, checks
from conformance.exact import SMALL, WIDE, Linear

import dvdq_kernels as kernels
from benchmarks.measuring.suite import GPU_BACKENDS
from benchmarks.quick.steps import Steps
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

DISTRIBUTIONS = (
    "torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "cuda-bindings", "nvidia-cuda-nvrtc", "numpy", "scipy", "numba",
    "diffusers", "transformers", "accelerate",
)  # fmt: skip
PROGRAMS = ("cc", "nvcc", "ncu", "compute-sanitizer", "git")
FULL = Rotation("full", seed=1)
WATCHED = ("a few tokens", "64 tokens, blocks", "several steps", "inputs no multiple of 128", "blocks 64", "decoded")
"""Of each route of the product one that is small enough for compute-sanitizer, under which it is far slower."""
BEHAVIOUR = (
    checks.check_integer_sums, checks.check_shared_activation, checks.check_activation_ties, checks.check_weight_ties,
    checks.check_views, checks.check_not_finite, checks.check_inputs_unchanged,
)  # fmt: skip
TWO_31 = ((200_000, 12288, 3072), (800_000, 1536, 3072))
"""Linears with more than 2^31 outputs, and with more than 2^31 activations."""


def able() -> list[str]:
    """The backends for GPUs that can run here."""
    return [name for name in GPU_BACKENDS if kernels.backends()[name] is None]


def probe(step: Steps) -> None:
    """What this machine is, what is installed, and which backends can run."""
    step("versions", _versions)
    step("backends", kernels.backends)
    if step.device == "cuda":
        step("GPU", _gpu)
        step("CuPy", _cupy)
        step("a tensor map", _tensor_map)


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found | {name: shutil.which(name) for name in PROGRAMS}


def _gpu() -> dict[str, Any]:
    of = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,memory.total", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.strip()
    return {
        "name": of.name,
        "capability": f"{of.major}.{of.minor}",
        "multiprocessors": of.multi_processor_count,
        "cache": of.L2_cache_size,
        "cuda": torch.version.cuda,
        "nvidia-smi": said,
    }


def _cupy() -> dict[str, Any]:
    import cupy
    from cupy_backends.cuda.libs import nvrtc

    stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream())
    runtime = cupy.cuda.runtime
    return {
        "runtime": runtime.runtimeGetVersion(),
        "driver": runtime.driverGetVersion(),
        "nvrtc": nvrtc.getVersion(),
        "stream": stream.ptr,
    }


def _tensor_map() -> list[int]:
    from dvdq_kernels.backends.cupy.tensor_map import tensor_map

    words = tensor_map(torch.zeros(256, 256, dtype=torch.int8, device="cuda"), (128, 128), swizzled=True)
    found: list[int] = words.view("u8")[:4].tolist()
    return found


def smoke(step: Steps) -> None:
    """Every kernel once, at a small size, known by name should it hang."""
    of = step.backend, step.device
    for grid in ("minmax", "bgr"):
        step(f"weight, {grid}", checks.check_weight, *of, WeightRule(4, grid), 256, torch.float32)
    step("decoding", checks.check_dequantize, *of, WeightRule(4, "minmax"), 256)
    for dtype in (torch.float32, torch.bfloat16):
        step(f"rotation, {dtype}", checks.check_rotation, *of, FULL, 768, dtype)
    for rotation in (None, FULL):
        step(f"activations, {rotation}", checks.check_activation, *of, ActivationRule(8, 128), rotation, torch.bfloat16)
    for tokens in (1, 17):
        case = cases.LinearCase(WeightRule(4, "minmax", 64), None, None, 256, tokens, torch.bfloat16)
        step(f"weight only, {tokens} tokens", checks.check_linear, *of, case)
    for name in ("a few tokens", "64 tokens, blocks", "one tile, one step", "several steps", "decoded", "blocks 128"):
        _exact(step, name, WIDE[name], 0)


def exact(step: Steps) -> None:
    """Integer linears, every output known: each route, width, tail and cluster, twice, as a race may hide."""
    for name, case in WIDE.items():
        for seed in range(2):
            _exact(step, name, case, seed)


def _exact(step: Steps, name: str, case: Linear, seed: int) -> None:
    if step.device == "cpu" and case.operations > SMALL:
        return
    on = f"wgmma: {name}" if step.backend == "cupy" and case.tokens > 64 and "wgmma" not in step.avoid else name
    step(f"{on} #{seed}", case.check, step.backend, step.device, seed)


def conformance(step: Steps) -> None:
    """The plain functions of ``tests/conformance``, what models run first, until the time is over."""
    of = step.backend, step.device
    for case in important_linears():
        step(f"linear {case}", checks.check_linear, *of, case)
    for check in BEHAVIOUR:
        step(check.__name__, check, *of)
    for rule in cases.ACTIVATION_RULES:
        for rotation in (FULL, None):
            step(f"activations {rule} {rotation}", checks.check_activation, *of, rule, rotation, torch.float32)
    for weight in cases.WEIGHT_RULES[:5]:
        step(f"weight {weight}", checks.check_weight, *of, weight, 256, torch.float32)
        step(f"decoding {weight}", checks.check_dequantize, *of, weight, 256)
    for size in cases.ROTATED_SIZES:
        for rotation in (Rotation("full"), FULL):
            step(f"rotation {size} {rotation}", checks.check_rotation, *of, rotation, size)


def important_linears() -> Iterator[cases.LinearCase]:
    """Those of conformance: many tokens, then the dtype of models, then every third of the others."""
    yield from (case for case in cases.LINEAR_CASES if case.tokens >= 300)
    few = [case for case in cases.LINEAR_CASES if case.tokens < 300]
    yield from (case for case in few if case.dtype == torch.bfloat16)
    yield from [case for case in few if case.dtype != torch.bfloat16][::3]


def watched(step: Steps) -> None:
    """What runs under compute-sanitizer: a small call of each CUDA kernel."""
    for rotation in (None, FULL):
        step(f"activations, {rotation}", _quantized, step, rotation)
    for name in WATCHED:
        _exact(step, name, WIDE[name], 0)
    _exact(step, "a cluster, small", Linear(1100, 4096, 256), 0)


def _quantized(step: Steps, rotation: Rotation | None) -> None:
    x = torch.randn(9, 3072, device=step.device, dtype=torch.bfloat16)
    kernels.rotate_quantize(x, ActivationRule(8, 128), rotation=rotation, backend=step.backend)


def offsets(step: Steps) -> None:
    """More than 2^31 elements: the first, the middle and the last tokens are those of calls that have them alone."""
    for shape in TWO_31:
        step(" × ".join(map(str, shape)), _same_alone, step, *shape)


def _same_alone(step: Steps, tokens: int, out_features: int, in_features: int) -> None:
    rotation, rule = Rotation("full"), ActivationRule(8)
    weight = torch.randn(out_features, in_features, device=step.device, dtype=torch.bfloat16) * 0.02
    options: dict[str, Any] = {"rotation": rotation, "backend": step.backend}
    qweight = kernels.quantize_weight(weight, WeightRule(4, "minmax"), **options)
    x = torch.randn(tokens, in_features, device=step.device, dtype=torch.bfloat16)
    whole = kernels.quantized_linear(x, qweight, rule, **options)
    for first in (0, tokens // 2, tokens - 300):
        part = slice(first, first + 300)
        alone = kernels.quantized_linear(x[part].clone(), qweight, rule, **options)
        assert torch.equal(whole[part], alone), f"tokens {first} to {first + 299} differ from those computed alone"


def counted(step: Steps) -> None:
    """What runs under the profiler: a product of each backend, whose counters say what it waits for."""
    for backend in able():
        step(backend, Linear(8192, 4096, 3072).check, backend, step.device)
