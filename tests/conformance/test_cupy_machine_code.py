"""Every CUDA kernel at the shapes of the models, compiled for every GPU that it is for; none has to be at hand."""

from __future__ import annotations

import csv
import os
import re
import sys
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("cupy") is None or find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs NVRTC through CuPy, and Triton's disassembler", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import estimates, machine_code
from benchmarks.estimates import ESTIMATES
from benchmarks.machine_code import CODE, NVRTC, Code
from benchmarks.measuring.roofline import GPUS, MULTIPROCESSORS, Gpu, Multiprocessor, estimate_product

from dvdq_kernels.backends.cupy.cubin import cubin
from dvdq_kernels.gpu import shared_memory
from dvdq_reference.spec.errors import DvdqError

TARGETS = tuple(MULTIPROCESSORS)
KEPT = {("W4A8 groups", "product_wgmma", 90), ("rotated 15360", "rotate_quantize", 90)}
"""Where NVRTC 13.0 keeps two registers, 8 bytes, in memory; 13.5 does not."""


@cache
def compiled(target: int) -> tuple[Code, ...]:
    return tuple(machine_code.codes([target]))


def recorded(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


AS_RECORDED = pytest.mark.skipif(
    {row["nvrtc"] for row in recorded(CODE)} != {version(NVRTC)},
    reason="states what the recorded version of NVRTC compiles: an older one may spill a register or two",
)


def tensor_cores(row: Code) -> set[str]:
    return {re.sub(r" \d+$", "", kind) for kind in row.tensor_cores.split(", ") if kind}


@pytest.mark.parametrize("target", TARGETS)
@AS_RECORDED
def test_a_kernel_fits_and_spills_nothing_unknown(target: int) -> None:
    for row in compiled(target):
        kept = (row.case, row.kernel, target) in KEPT
        assert row.local <= (0.02 * row.instructions if kept else 0), f"{row.kernel} {row.tile}: {row.local} of spills"
        assert row.stack <= (8 if kept else 0), f"{row.kernel} {row.tile} has a stack of {row.stack} bytes"
        assert row.shared <= shared_memory(target), f"{row.kernel} {row.tile} takes {row.shared} bytes"
        assert row.resident >= 1
        assert row.loop_multiplied > 0 or "product" not in row.kernel or "packed" in row.case


@pytest.mark.parametrize("target", TARGETS)
def test_a_product_runs_on_the_tensor_cores_that_it_is_for(target: int) -> None:
    products = [row for row in compiled(target) if row.kernel.startswith("product")]
    assert products
    for row in products:
        found = tensor_cores(row)
        if row.kernel == "product_wgmma":
            assert target == 90
            assert found == {"wgmma int8"}
        elif "packed" in row.case and target >= 90:
            assert "int4" not in found, "INT4 tensor cores are gone from 9.0 on"
        elif row.case.startswith("W4A4") and target // 10 == 8:
            assert found == {"int4"}
        else:
            assert found == {"int8"}
    kernels = {row.kernel for row in products}
    assert kernels == ({"product_mma", "product_wgmma"} if target == 90 else {"product_mma"})


@pytest.mark.parametrize("target", TARGETS)
def test_a_rotation_takes_registers_shuffles_and_tensor_cores(target: int) -> None:
    rotations = [row for row in compiled(target) if row.case.startswith("rotated")]
    assert len(rotations) >= 8
    for row in rotations:
        assert row.shuffles > 0
        assert tensor_cores(row) == {"16-bit"}


@pytest.mark.parametrize("target", TARGETS)
@AS_RECORDED
def test_the_table_is_what_the_compiler_says(target: int) -> None:
    rows = [row for row in recorded(CODE) if int(row["target"]) == target]
    assert rows == [{name: str(value) for name, value in asdict(row).items()} for row in compiled(target)]


@AS_RECORDED
@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_the_estimates_follow_from_the_table(gpu: Gpu) -> None:
    rows = [row for row in recorded(ESTIMATES) if row["gpu"] == gpu.name]
    assert rows == [{name: str(value) for name, value in asdict(row).items()} for row in estimates.bounds([gpu])]


def test_a_machine_without_nvrtc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[int, int]:
        raise RuntimeError("libnvrtc is nowhere")

    monkeypatch.setattr("cupy_backends.cuda.libs.nvrtc.getVersion", missing)
    with pytest.raises(DvdqError, match=r"NVRTC, which pip install .* brings.* got libnvrtc is nowhere"):
        cubin("", 89)


def test_a_kernel_that_does_not_compile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVDQ_KERNELS_CACHE", str(tmp_path))
    with pytest.raises(DvdqError, match=r"sm_89: expected a kernel that compiles, got .*error"):
        cubin("no kernel", 89)
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_occupancy_is_that_of_the_scarcest() -> None:
    held = Multiprocessor(warps=48, blocks=24, shared_bytes=100 * 1024)
    assert held.resident(threads=256, registers=32, shared=0) == 6, "warps: 48 of 8 each"
    assert held.resident(threads=32, registers=32, shared=0) == 24, "blocks"
    assert held.resident(threads=256, registers=128, shared=0) == 2, "registers: 65,536 of 8 times 4,096"
    assert held.resident(threads=256, registers=121, shared=0) == 2, "which go to warps by 256"
    assert held.resident(threads=256, registers=32, shared=49 * 1024) == 2, "shared memory, and 1 KB of each block"
    assert held.resident(threads=256, registers=32, shared=50 * 1024) == 1
    assert held.occupancy(threads=256, registers=128, shared=0) == pytest.approx(16 / 48)


def test_an_estimate_is_its_slowest_unit() -> None:
    gpu = Gpu("", 89, multiprocessors=2, clock=1.0, tensor={"s8": 1.0}, bytes=1.0)
    whole = estimate_product(gpu, (256, 128, 1000), (128, 128), "s8", 1.0, (1, 4096))
    assert whole.tensor == pytest.approx(2 * 256 * 128 * 1000 / 1e9)
    assert whole.issue == pytest.approx(256 * 128 * 1000 / 4096 / (2 * 4 * 1e9) * 1e3)
    assert whole.bytes == pytest.approx((256 * 1000 + 128 * 500 + 2 * 256 * 128) / 1e9)
    assert (whole.bound, whole.least) == ("tensor cores", whole.tensor)
    more = estimate_product(gpu, (257, 128, 1000), (128, 128), "s8", 1.0, (1, 4096))
    assert more.tensor == pytest.approx(2 * whole.tensor), "a row more is a round of tiles more"
    assert estimate_product(gpu, (256, 128, 1000), (128, 128), "s8", 1.0, (10**6, 4096)).bound == "instructions"
