"""BGR of a 512×3072 weight at 4 bits: the torch backend against the literal oracle, which it must equal.

Recorded only if every row's squared error is the oracle's to one part in a million.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from _record import in_process, measure, record

from dvdq_kernels import quantize_weight
from dvdq_kernels.backends.torch.bgr import refine
from dvdq_reference.oracle.bgr import refine_grid
from dvdq_reference.spec.recipe import WeightRule

SHAPE = (512, 3072)
THREADS = 2
FAST, ORACLE = "dvdq-kernels torch", "oracle"


def weight() -> torch.Tensor:
    """A seeded normal weight, like a rotated one."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.02


def main() -> None:
    """Compare the errors, then measure both, each in its process."""
    values = weight()
    truth, error = refine_grid(values.numpy()).error[:, 0], refine(values, 4)[2].numpy()
    worst = np.abs(error / truth - 1).max()
    if worst > 1e-6:
        raise SystemExit(f"not recorded: an error differs from the oracle's by {worst:.2e} of itself")
    measured = {name: [in_process(__file__, name, THREADS)] for name in (ORACLE, FAST)}
    record(__file__, "bgr", "x".join(map(str, SHAPE)), THREADS, ORACLE, measured)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case [provider] if provider == FAST:
            values = weight()
            measure(lambda: quantize_weight(values, WeightRule(4, "bgr"), backend="torch"), repeats=7)
        case [provider] if provider == ORACLE:
            values = weight()
            measure(lambda: refine_grid(values.numpy()), repeats=1, warm_up=False)
        case other:
            raise SystemExit(f"expected {FAST!r} or {ORACLE!r}, got {other}")
