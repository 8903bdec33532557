"""Rotation and quantization in one pass, on a GPU, against a device-to-device copy of as many bytes.

Reading the activations and writing their codes is three bytes a value; scales and sums come to a thirty-second more at
most, and the copy is not charged with them.
"""

from __future__ import annotations

from benchmarks.measuring.case import Provider
from benchmarks.measuring.gpu import Work
from benchmarks.measuring.own import quantizers
from benchmarks.measuring.peers import copy
from benchmarks.measuring.suite import Suite
from benchmarks.measuring.workloads import activations

SUITE = Suite(
    name="gpu_rotate_quantize",
    operation="rotate_quantize",
    shapes=activations(),
    quick=((118_800, 3072), (75_600, 5120), (32_760, 1536)),
    reference=Provider("copy", "", lambda case: copy(case, Work(3 * case.shape[0] * case.shape[1])), "torch"),
    ours=quantizers,
)
main = SUITE.main
