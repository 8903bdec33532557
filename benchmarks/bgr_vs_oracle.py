"""BGR of a 512×3072 weight at 4 bits: the backends for a CPU against the literal oracle, which they must equal.

Recorded only if every row's squared error is the oracle's to one part in a million.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.measuring.records import in_process, measure, record
from dvdq_kernels import dequantize, quantize_weight
from dvdq_reference.oracle.bgr import refine_grid
from dvdq_reference.spec.recipe import WeightRule

NAME = "bgr_vs_oracle"

SHAPE = (512, 3072)
THREADS = 2
ORACLE, BACKENDS = "oracle", {"dvdq-kernels cpu": "cpu", "dvdq-kernels torch": "torch"}


def weight() -> torch.Tensor:
    """A seeded normal weight, like a rotated one."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.02


def compare() -> None:
    """Compare the errors, then measure both, each in its process."""
    values = weight()
    truth = refine_grid(values.numpy()).error[:, 0]
    for backend in BACKENDS.values():
        decoded = dequantize(quantize_weight(values, WeightRule(4, "bgr"), backend=backend)).double().numpy()
        worst = np.abs(np.square(values.double().numpy() - decoded).sum(axis=1) / truth - 1).max()
        if worst > 1e-6:
            raise SystemExit(f"not recorded: {backend}'s error differs from the oracle's by {worst:.2e} of itself")
    measured = {name: [in_process(NAME, name, THREADS)] for name in (ORACLE, *BACKENDS)}
    record(NAME, "bgr", "x".join(map(str, SHAPE)), THREADS, ORACLE, measured)


def main(arguments: Sequence[str]) -> None:
    """All, or what one provider's process measures."""
    match arguments:
        case []:
            compare()
        case [provider] if provider in BACKENDS:
            values = weight()
            backend = BACKENDS[provider]
            quantize_weight(values[:1], WeightRule(4, "bgr"), backend=backend)  # loads it, and compiles if it has to
            measure(lambda: quantize_weight(values, WeightRule(4, "bgr"), backend=backend), repeats=7)
        case [provider] if provider == ORACLE:
            values = weight()
            measure(lambda: refine_grid(values.numpy()), repeats=1, warm_up=False)
        case other:
            raise SystemExit(f"expected {ORACLE!r} or one of {list(BACKENDS)}, got {other}")
