"""What emulates a GPU on a CPU does what a GPU does, and refuses kernels that break its rules."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from dvdq_kernels.registry import backends

if backends()["cupy"] is not None or not os.environ.get("DVDQ_CUPY_EMULATE"):
    pytest.skip("needs DVDQ_CUPY_EMULATE", allow_module_level=True)

from dvdq_kernels.backends.cupy import emulation
from dvdq_kernels.backends.cupy.sources import translation_unit
from dvdq_reference.spec.errors import DvdqError

SEEDS = 20


def run(text: str, *arguments: object, blocks: int = 1, threads: int = 64, shared: int = 4096) -> None:
    source = translation_unit("machine.cuh", {}) + "\nKERNEL(64, 1) probe" + text
    emulation.run("probe", source, arguments, blocks, threads, shared)


def results(text: str, threads: int = 64) -> set[tuple[int, ...]]:
    """What a kernel over ``int* out`` leaves there, over many orders of its threads."""
    found = set()
    for _ in range(SEEDS):
        out = torch.zeros(threads, dtype=torch.int32)
        run(f"(int* out) {{ {text} }}", out, threads=threads)
        found.add(tuple(out.tolist()))
    return found


NEIGHBOUR = """
    int* const shared = reinterpret_cast<int*>(shared_memory());
    shared[threadIdx.x] = threadIdx.x;
    {barrier}
    out[threadIdx.x] = shared[(threadIdx.x + 33) % 64];
"""


def test_a_barrier_makes_what_was_written_visible() -> None:
    assert results(NEIGHBOUR.format(barrier="__syncthreads();")) == {tuple((i + 33) % 64 for i in range(64))}


def test_a_missing_barrier_shows() -> None:
    assert len(results(NEIGHBOUR.format(barrier=""))) > 1


COPIED = """(const int* from, int* out) {{
    int* const shared = reinterpret_cast<int*>(shared_memory());
    copy_async_16(shared + 4 * threadIdx.x, from + 4 * threadIdx.x, true);
    copy_async_commit();
    {wait}
    for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = shared[4 * threadIdx.x + i];
}}"""


@pytest.mark.parametrize(("wait", "right"), [("copy_async_wait<0>();", True), ("copy_async_wait<1>();", False)])
def test_a_copy_is_there_when_it_was_waited_for(wait: str, right: bool) -> None:
    given = torch.arange(256, dtype=torch.int32)
    always = True
    for _ in range(SEEDS):
        out = torch.zeros(256, dtype=torch.int32)
        run(COPIED.format(wait=wait), given, out)
        always &= torch.equal(out, given)
    assert always == right


def test_threads_that_wait_for_ever_are_an_error() -> None:
    with pytest.raises(DvdqError, match="every thread waits"):
        run("(int* out) { if (threadIdx.x < 32) __syncthreads(); }", torch.zeros(1, dtype=torch.int32))


def test_a_warp_that_parts_at_a_shuffle_is_an_error() -> None:
    text = "(int* out) { if (threadIdx.x % 2) __syncwarp(); else out[0] = __shfl_xor_sync(~0u, 1, 1); }"
    with pytest.raises(DvdqError, match="a warp is at"):
        run(text, torch.zeros(1, dtype=torch.int32))


@pytest.mark.parametrize("at", [-1024, 1024])
def test_memory_beside_a_tensor_is_nobodys(at: int) -> None:
    page = torch.zeros(1024, dtype=torch.int32)
    with pytest.raises(DvdqError, match="not its own"):
        run("(int* out, int64 at) { out[at] = 1; }", page, np.int64(at))
    run("(int* out, int64 at) { out[at] = 1; }", page, np.int64(1023))
    assert page[1023] == 1


def test_memory_past_the_shared_is_nobodys() -> None:
    with pytest.raises(DvdqError, match="not its own"):
        run("(int* out) { shared_memory()[4096 + threadIdx.x] = 1; }", torch.zeros(1, dtype=torch.int32))


def test_shared_memory_starts_with_what_was_left_in_it() -> None:
    out = torch.zeros(64, dtype=torch.int32)
    run("(int* out) { out[threadIdx.x] = shared_memory()[threadIdx.x]; }", out)
    assert (out != 0).all()


def test_a_kernel_runs_after_one_that_failed() -> None:
    test_threads_that_wait_for_ever_are_an_error()
    test_a_barrier_makes_what_was_written_visible()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_floats_are_rounded_to_the_nearest(dtype: torch.dtype) -> None:
    exact = torch.cat([torch.randn(4096), torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 0.0, 65504.0])])
    given = torch.cat([exact, -exact])
    out = torch.zeros(given.numel(), dtype=dtype)
    name = {torch.bfloat16: "bfloat16", torch.float16: "float16"}[dtype]
    loop = f"for (int64 i = 0; i < size; ++i) out[i] = converted<{name}>(x[i]);"
    text = f"(const float* x, {name}* out, int64 size) {{ {loop} }}"
    run(text, given, out, np.int64(given.numel()), threads=32)
    assert torch.equal(out, given.to(dtype))
