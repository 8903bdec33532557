"""BGR of whole models on a GPU: every 4-bit linear of HunyuanVideo and Wan, random weights, rotated, to packed codes.

A row for each shape has the time of one of its layers, a row for each model that of all of them, one after the other.
On a sample of each shape's rows codes and grids are compared with those of the torch backend, whose time on as many
rows is the reference; rows that differ are counted in the row.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

import torch

from benchmarks.measuring import gpu, records, workloads
from benchmarks.measuring.case import Case
from benchmarks.measuring.gpu import Timing, Work
from benchmarks.measuring.own import ROTATION
from benchmarks.measuring.row import Label, Timed, make_row, show
from dvdq_kernels import quantize_weight, rotate
from dvdq_reference.spec.recipe import WeightRule

RULE = WeightRule(4, "bgr")
OTHER = "torch"
SAMPLE_ROWS = 2048
QUICK_LAYERS = 3


@dataclass(frozen=True)
class Layers:
    """Layers of one shape: seconds of each, memory of one, the other backend's seconds for one, and rows compared."""

    seconds: list[float]
    peak_bytes: int
    other_s: float
    differing: int
    compared: int
    bytes: int

    def timed(self) -> Timed:
        """What one layer takes."""
        one = len(self.seconds) == 1
        tenths = self.seconds * 9 if one else quantiles(self.seconds, n=10, method="inclusive")
        timing = Timing(tenths[1], tenths[4], tenths[7], self.peak_bytes)
        return Timed(timing, Work(self.bytes), f"{self.differing} of {self.compared} rows differ")


def total(layers: Sequence[Layers]) -> Layers:
    """All layers as one."""
    return Layers(
        [sum(sum(of.seconds) for of in layers)],
        max(of.peak_bytes for of in layers),
        sum(of.other_s * len(of.seconds) for of in layers),
        sum(of.differing for of in layers),
        sum(of.compared for of in layers),
        sum(of.bytes * len(of.seconds) for of in layers),
    )


def measure(shape: workloads.Shape, count: int, device: torch.device, backend: str) -> Layers:
    """Compares a sample, which also compiles what there is to compile, and times ``count`` layers."""
    sample = rotate(Case(shape, device).weight[:SAMPLE_ROWS].float(), ROTATION, backend=backend)
    ours = quantize_weight(sample, RULE, backend=backend)
    theirs = quantize_weight(sample, RULE, backend=OTHER)
    assert ours.zero is not None
    assert theirs.zero is not None
    pairs = ((ours.qweight, theirs.qweight), (ours.scale, theirs.scale), (ours.zero, theirs.zero))
    differs = torch.stack([(a != b).any(dim=1) for a, b in pairs]).any(dim=0)
    other_s = gpu.elapsed(lambda: quantize_weight(sample, RULE, backend=OTHER)) * shape[0] / sample.shape[0]
    peak, seconds = 0, []
    for seed in range(count):
        weight = Case(shape, device, seed).weight

        def call(weight: torch.Tensor = weight) -> object:
            return quantize_weight(weight, RULE, rotation=ROTATION, backend=backend)

        peak = peak or gpu.peak_bytes(call)
        seconds.append(gpu.elapsed(call))
    # The weight is read in two bytes a value, and half a byte is written.
    return Layers(seconds, peak, other_s, int(differs.sum()), sample.shape[0], 5 * shape[0] * shape[1] // 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Times the layers of each model, and writes the model's row if all of them were timed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_LAYERS} layers a shape, and no model")
    parser.add_argument("--shapes", type=workloads.parse, help="only layers such as 12288x3072, no model")
    parser.add_argument("--backend", default="triton", help="of dvdq-kernels; triton")
    options = parser.parse_args(arguments)
    device = gpu.require_gpu()
    ceilings = gpu.ceilings(device)

    def record(operation: str, model: str, shape: str, layers: Layers) -> None:
        label = Label(operation, f"dvdq-kernels {options.backend}", model, shape)
        row = make_row(label, device, layers.timed(), f"dvdq-kernels {OTHER}", layers.other_s, ceilings)
        records.append("gpu_bgr", row.device, [row])
        show(row)

    for name, model in workloads.MODELS.items():
        found = []
        for layer in (*model.layers, *model.modulation):
            shape = (layer.out_features, layer.in_features)
            if options.shapes and shape not in options.shapes:
                continue
            count = min(QUICK_LAYERS, layer.count) if options.quick else layer.count
            found.append(measure(shape, count, device, options.backend))
            record("bgr_layer", name, workloads.name(shape), found[-1])
        if not options.quick and not options.shapes:
            whole = total(found)
            record("bgr_model", name, f"{sum(len(of.seconds) for of in found)} layers", whole)
