"""Every Triton kernel at the shapes of the models, compiled for every GPU that it is for; none has to be at hand."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

if find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("compiles, which needs Triton and not its interpreter", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from dvdq_kernels.backends.triton.compilation import Compiled, compile_launch, machine_code
from dvdq_kernels.backends.triton.launch import options
from dvdq_kernels.gpu import recording
from dvdq_kernels.registry import operators
from dvdq_reference.spec.recipe import BGR_BOUNDS, BGR_TOLERANCE

TARGETS = (80, 89, 90, 100, 120)
TRITON = tuple(map(int, version("triton").split(".")[:2]))
INTEGER = {90: "wgmma.s32.s8.s8", **({100: "tcgen05.mma.kind::i8"} if TRITON >= (3, 9) else {})}
"""Large integer products; elsewhere ``mma.sync``, and everywhere for few tokens. Before 3.9 10.x had none either."""
SMALL_INTEGER = "mma.s32.s8.s8.s32"
MOST_LOCAL = dict.fromkeys(TARGETS, 0.02) | ({} if TRITON >= (3, 9) else {100: 0.03})
"""Share of instructions that may touch spilled registers, outside the products, where none may.

On 10.x a rotation's sums are in tensor memory from 3.9 on, and in registers before.
"""


def compiled(target: int, operator: str, *args: Any) -> list[Compiled]:
    """What ``operator`` would start on a GPU of capability ``target``; products spill nothing, others next to."""
    with recording(target) as record:
        getattr(operators("triton"), operator)(*args)
    assert record.launches
    results = [compile_launch(launch, target) for launch in record.launches]
    for result in results:
        assert "trap;" not in result.ptx, f"{result.name} ends in a trap on {target}"
        most = 0.0 if "product" in result.name else MOST_LOCAL[target]
        assert result.local <= most, f"{result.name} spills {result.spilled} bytes on {target}, {result.local:.2%}"
    return results


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def instructions(results: list[Compiled]) -> set[str]:
    return set().union(*(result.tensor_core_instructions for result in results))


def integer_linear(target: int, tokens: int, out: int, in_features: int, blocks: int, groups: int) -> list[Compiled]:
    codes = empty(tokens, in_features, dtype=torch.int8)
    x_scale, token_sum = empty(tokens, blocks, dtype=torch.float32), empty(tokens, dtype=torch.float32)
    qweight = empty(out, in_features // 2, dtype=torch.uint8)
    scale, zero = empty(out, groups, dtype=torch.float32), empty(out, groups, dtype=torch.int16)
    bias = empty(out, dtype=torch.bfloat16)
    quantized = codes, x_scale, token_sum, qweight, scale, zero, bias
    return compiled(target, "integer_linear", *quantized, 4, 4, torch.bfloat16)


def float_linear(
    target: int, tokens: int, out: int, in_features: int, groups: int, dtype: torch.dtype
) -> list[Compiled]:
    qweight = empty(out, in_features // 2, dtype=torch.uint8)
    scale, zero = empty(out, groups, dtype=torch.float32), empty(out, groups, dtype=torch.int16)
    x, bias = empty(tokens, in_features, dtype=dtype), empty(out, dtype=dtype)
    return compiled(target, "float_linear", x, qweight, scale, zero, bias, 4, None, None)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("tokens", "out", "in_features", "blocks", "groups"),
    [
        (118_800, 12288, 3072, 1, 1),
        (118_800, 3072, 15360, 120, 1),
        (75_600, 5120, 13824, 1, 108),
        (32_760, 1536, 8960, 70, 70),
    ],
)
def test_many_tokens(target: int, tokens: int, out: int, in_features: int, blocks: int, groups: int) -> None:
    results = integer_linear(target, tokens, out, in_features, blocks, groups)
    assert results[0].name == "_unpack"
    assert results[-1].tensor_core_instructions == {INTEGER.get(target, SMALL_INTEGER)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("tokens", "blocks", "groups"), [(1, 1, 1), (16, 24, 1), (100, 1, 24)])
def test_few_tokens_are_multiplied_as_nibbles_are_decoded(target: int, tokens: int, blocks: int, groups: int) -> None:
    (*_, product) = integer_linear(target, tokens, 3072, 3072, blocks, groups)
    assert any("s32.s8.s8" in name or "kind::i8" in name for name in product.tensor_core_instructions)
    assert product.name == "integer_product"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_full_activations(target: int, dtype: torch.dtype) -> None:
    found = instructions(float_linear(target, 1, 18432, 3072, 1, dtype))
    if dtype == torch.float32:
        assert not found, "float32 is multiplied as it is"
    else:
        assert all(str(dtype)[6:].replace("float", "f") in name for name in found)
        assert found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("groups", [1, 24])
def test_float64_is_decoded_and_multiplied_by_torch(target: int, groups: int) -> None:
    """No ``tl.dot`` of float64: before 3.9 the compiler takes the process with it."""
    [decoded] = float_linear(target, 1, 3072, 3072, groups, torch.float64)
    assert not decoded.tensor_core_instructions


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("tokens", "in_features", "bits", "block", "kind"),
    [
        (32_760, 1536, 4, 128, "full"),
        (118_800, 3072, 8, None, "full"),
        (75_600, 5120, 4, 256, "full"),
        (32_760, 8960, 4, 128, "full"),
        (118_800, 12288, 8, 128, "full"),
        (75_600, 13824, 4, None, "full"),
        (32_760, 14336, 4, 128, "full"),
        (118_800, 15360, 4, 128, "full"),
        (118_800, 3072, 4, 128, "block"),
        (75_600, 5120, 8, None, "block"),
        (118_800, 3072, 4, 256, "regular"),
        (75_600, 5120, 8, None, None),
        (118_800, 3072, 4, 128, None),
    ],
)
def test_activations(
    target: int, tokens: int, in_features: int, bits: int, block: int | None, kind: str | None
) -> None:
    x = empty(tokens, in_features, dtype=torch.bfloat16)
    seed = 3 if kind in ("full", "block") else None
    results = compiled(target, "rotate_quantize", x, bits, block, "gaussian", kind, seed, False)
    assert len(results) == 1, "activations are read once"
    assert bool(results[0].tensor_core_instructions) == (kind is not None)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("out", "in_features", "grid", "group_size"),
    [(12288, 3072, "bgr", None), (3072, 15360, "bgr", None), (5120, 13824, "bgr", 64), (5120, 13824, "minmax", None)],
)
def test_weights(target: int, out: int, in_features: int, grid: str, group_size: int | None) -> None:
    search = grid, group_size, False, BGR_BOUNDS, BGR_TOLERANCE
    compiled(target, "quantize_weight", empty(out, in_features, dtype=torch.bfloat16), 4, *search)
    groups = 1 if group_size is None else in_features // group_size
    qweight = empty(out, in_features // 2, dtype=torch.uint8)
    scale, zero = empty(out, groups, dtype=torch.float32), empty(out, groups, dtype=torch.int16)
    compiled(target, "dequantize", qweight, scale, zero, 4, in_features)


class Driver:
    """Of a GPU of compute capability 9.0, on which nothing is started."""

    class Utilities:
        def get_device_properties(self, device: int) -> dict[str, int]:
            return {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65536}

        def load_binary(self, *of: object) -> tuple[int, ...]:
            return 1, 2, 0, 0, 1024

        def unload_module(self, *of: object) -> None: ...

    class Launcher:
        def __init__(self, *of: object) -> None: ...

    utils, launcher_cls = Utilities(), Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.mark.parametrize("tokens", [1, 32])
def test_what_was_compiled_ahead_is_what_a_launch_looks_up(
    tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes of 1, multiples of 16 and others, and tensors that are not there, are each specialised in their way."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    with recording(90) as record:
        operators("triton").rotate(empty(tokens, 96, dtype=torch.float32), "full", None)
        operators("triton").rotate_quantize(
            empty(tokens, 40, dtype=torch.float32), 8, None, "absmax", None, None, False
        )
    monkeypatch.setattr(driver, "_active", Driver())
    for launch in record.launches:
        machine_code(launch, 90)
        before = sorted(tmp_path.iterdir())
        asked = {**launch.arguments, **launch.constants, **options(launch.warps, launch.stages)}
        launch.kernel.warmup(grid=launch.grid, **asked)
        launch.kernel.device_caches.clear()
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("target", TARGETS)
def test_rotation(target: int) -> None:
    compiled(target, "rotate", empty(12288, 3072, dtype=torch.float32), "full", None)
