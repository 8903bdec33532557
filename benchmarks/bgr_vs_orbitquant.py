"""BGR of a 3072×3072 weight at 4 bits against ``orbitquant`` 0.15 quantizing such a layer, in turns on the same cores.

``orbitquant`` rotates as it quantizes, so BGR is measured with rotation too. Recorded only if BGR's errors are the
oracle's on a sample of rows. ``ORBITQUANT_PYTHON`` names an interpreter that has orbitquant and dvdq-kernels, if this
one does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.measuring.records import Measurement, in_process, measure, record
from dvdq_kernels import dequantize, quantize_weight
from dvdq_reference.oracle.bgr import refine_grid
from dvdq_reference.spec.recipe import Rotation, WeightRule

NAME = "bgr_vs_orbitquant"

SIZE = 3072
THREADS = 2
TURNS, REPEATS = 3, 4
PEER, PLAIN, ROTATED = "orbitquant", "dvdq-kernels cpu", "dvdq-kernels cpu, rotated"


def weight(rows: int = SIZE) -> torch.Tensor:
    """A seeded normal weight, like a rotated one."""
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(0)) * 0.02


def quantize_with_orbitquant() -> None:
    """Its W4A4 layer from a plain linear, as its own benchmark makes it."""
    from orbitquant.config import OrbitQuantConfig
    from orbitquant.layers import OrbitQuantLinear

    linear = torch.nn.Linear(SIZE, SIZE, bias=False).requires_grad_(False)
    linear.weight.copy_(weight())
    config = OrbitQuantConfig(weight_bits=4, activation_bits=4)
    measure(lambda: OrbitQuantLinear.from_linear(linear, config=config, module_name="linear"), REPEATS)


def quantize_with_bgr(rotation: Rotation | None) -> None:
    """Ours, from the same weight to packed codes."""
    values = weight()
    quantize_weight(values[:1], WeightRule(4, "bgr"), backend="cpu")  # loads it, and compiles if it has to
    measure(lambda: quantize_weight(values, WeightRule(4, "bgr"), rotation=rotation, backend="cpu"), REPEATS)


def compare() -> None:
    """Check, then let the providers take turns."""
    sample = weight(16)
    decoded = dequantize(quantize_weight(sample, WeightRule(4, "bgr"), backend="cpu")).double().numpy()
    error = np.square(sample.double().numpy() - decoded).sum(axis=1)
    worst = np.abs(error / refine_grid(sample.numpy()).error[:, 0] - 1).max()
    if worst > 1e-6:
        raise SystemExit(f"not recorded: an error differs from the oracle's by {worst:.2e} of itself")
    python = os.environ.get("ORBITQUANT_PYTHON", sys.executable)
    measured: dict[str, list[Measurement]] = {PEER: [], PLAIN: [], ROTATED: []}
    for _ in range(TURNS):
        for name, runs in measured.items():
            runs.append(in_process(NAME, name, THREADS, python))
    record(NAME, "bgr", f"{SIZE}x{SIZE}", THREADS, PEER, measured)


def main(arguments: Sequence[str]) -> None:
    """All, or what one provider's process measures."""
    torch.set_num_threads(THREADS)
    match arguments:
        case []:
            compare()
        case [provider] if provider == PEER:
            quantize_with_orbitquant()
        case [provider] if provider in (PLAIN, ROTATED):
            quantize_with_bgr(Rotation("full") if provider == ROTATED else None)
        case other:
            raise SystemExit(f"expected {PEER!r}, {PLAIN!r} or {ROTATED!r}, got {other}")
