"""4-bit weights and full activations of one to sixteen tokens, on a GPU, against a copy of as many bytes.

These are HunyuanVideo's modulation layers. A call takes microseconds, less than starting it: calls on unlike weights,
together four times as large as the cache, take turns in a CUDA graph.
"""

from __future__ import annotations

import math

import torch

from benchmarks.measuring.case import Case, Provider
from benchmarks.measuring.own import weight_only
from benchmarks.measuring.peers import BF16, GEMLITE_A16W4, NF4, copy
from benchmarks.measuring.suite import Suite
from benchmarks.measuring.workloads import MODELS, Shape

TOKENS = (1, 2, 4, 8, 16)
CACHES = 4


def cases(shape: Shape, device: torch.device) -> list[Case]:
    """Two at least, and so many that packed weights do not stay in the cache."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 0
    count = math.ceil(CACHES * cache / (shape[1] * shape[2] / 2))
    return [Case(shape, device, seed) for seed in range(max(2, count))]


SUITE = Suite(
    name="gpu_weight_only",
    operation="weight_only",
    shapes=tuple(
        (tokens, layer.out_features, layer.in_features)
        for layer in MODELS["HunyuanVideo"].modulation
        for tokens in TOKENS
    ),
    quick=((1, 18432, 3072), (16, 18432, 3072)),
    reference=Provider("copy", "", lambda case: copy(case, case.work(x_bytes=2, weight_bytes=0.5)), "torch"),
    ours=weight_only,
    beside=(BF16,),
    peers=(GEMLITE_A16W4, NF4),
    cases=cases,
)
main = SUITE.main
