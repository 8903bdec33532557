"""Timing on a GPU: what it can do at most, and how long a call takes there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import quantiles

import torch

SHARES = [0.2, 0.5, 0.8]
REPEAT_MS = 200
GRAPH_CALLS, REPLAYS = 64, 30
COPY_BYTES = 2**31
PRODUCT_SIZE = 8192


def require_gpu() -> torch.device:
    """The GPU, or the end of the program."""
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this measures a GPU, and nothing else can stand in for one")
    return torch.device("cuda", 0)


@dataclass(frozen=True)
class Work:
    """The least that a computation does: bytes, each input read once and each output written once, and operations.

    ``unit`` is what does the operations: ``"bf16"``, ``"int8"`` or ``"int4"`` tensor cores.
    """

    bytes: int
    operations: int = 0
    unit: str = "bf16"


@dataclass(frozen=True)
class Ceilings:
    """What a GPU was measured to reach: bytes a second, read and written, and operations a second of each unit."""

    bytes_per_s: float
    operations_per_s: dict[str, float]

    def floor(self, work: Work) -> float:
        """The seconds that ``work`` takes at least: those of its bytes, or those of its operations."""
        return max(work.bytes / self.bytes_per_s, work.operations / self.operations_per_s[work.unit])


@dataclass(frozen=True)
class Timing:
    """Quantiles of the seconds of a call, and the bytes of device memory that it took at most, its output included."""

    p20: float
    p50: float
    p80: float
    peak_bytes: int


def measure(calls: Sequence[Callable[[], object]], repeat_ms: int = REPEAT_MS) -> Timing:
    """The time of one call, its inputs not in the cache; it is repeated for about ``repeat_ms``.

    A single call is timed with events, the cache cleared before each repeat. Several, which do the same on unlike
    memory, are so short that starting them would be most of what events see: they take turns in a CUDA graph.
    """
    peak = peak_bytes(calls[0])
    p20, p50, p80 = _time_graph(calls) if len(calls) > 1 else _time_events(calls[0], repeat_ms)
    return Timing(p20, p50, p80, peak)


def ceilings(device: torch.device) -> Ceilings:
    """Measures a large copy and two large products.

    An int8 tensor core does at least twice what it does in bf16: what cuBLAS reaches in bf16, doubled, is what a
    product as well made would reach, if cuBLAS's own int8 product does not show more. From 8.0 to 8.9 there are tensor
    cores for int4, twice as fast again; elsewhere the compiler makes int4 products of others.
    """
    codes = torch.randint(-128, 128, (2, COPY_BYTES), dtype=torch.int8, device=device)
    copy = _time_events(lambda: codes[1].copy_(codes[0]))[1]
    a = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, dtype=torch.bfloat16, device=device)
    b = torch.randn_like(a)
    bf16 = 2 * PRODUCT_SIZE**3 / _time_events(lambda: a @ b.t())[1]
    v, u = codes[:, : PRODUCT_SIZE**2].view(2, PRODUCT_SIZE, PRODUCT_SIZE)
    int8 = 2 * PRODUCT_SIZE**3 / _time_events(lambda: torch._int_mm(v, u.t()))[1]
    int8 = max(int8, 2 * bf16)
    int4 = 2 * int8 if torch.cuda.get_device_capability(device)[0] == 8 else int8
    found = Ceilings(2 * COPY_BYTES / copy, {"bf16": bf16, "int8": int8, "int4": int4})
    print(
        f"{describe(device)[0]}: copy {found.bytes_per_s / 1e12:.2f} TB/s, cuBLAS bf16 {bf16 / 1e12:.0f} TFLOP/s, "
        f"int8 {int8 / 1e12:.0f} TOP/s",
        flush=True,
    )
    return found


def describe(device: torch.device) -> tuple[str, str]:
    """A device's name and its compute capability."""
    if device.type != "cuda":
        return device.type, ""
    major, minor = torch.cuda.get_device_capability(device)
    return torch.cuda.get_device_name(device), f"{major}.{minor}"


def elapsed(call: Callable[[], object]) -> float:
    """Seconds of one call by the clock, from an idle device to an idle device."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(call: Callable[[], object]) -> int:
    """The device memory that a call takes at most, its output included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _time_events(call: Callable[[], object], repeat_ms: int = REPEAT_MS) -> tuple[float, float, float]:
    # Triton is for Linux; a check of the rest needs none.
    from triton.testing import do_bench

    p20, p50, p80 = do_bench(call, warmup=repeat_ms // 4, rep=repeat_ms, quantiles=SHARES)
    return p20 / 1e3, p50 / 1e3, p80 / 1e3


def _time_graph(calls: Sequence[Callable[[], object]]) -> tuple[float, float, float]:
    """Of replays of a graph of ``GRAPH_CALLS`` calls or more, the quantiles of one call's share."""
    rounds = math.ceil(GRAPH_CALLS / len(calls))
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        for call in islice(cycle(calls), rounds * len(calls)):
            call()
    for _ in range(3):
        graph.replay()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPLAYS)]
    for start, end in events:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    seconds = sorted(start.elapsed_time(end) / 1e3 / (rounds * len(calls)) for start, end in events)
    tenths = quantiles(seconds, n=10, method="inclusive")
    return tenths[1], tenths[4], tenths[7]
