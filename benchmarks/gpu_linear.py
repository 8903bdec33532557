"""Linears of HunyuanVideo and Wan on a GPU: ours, product alone and whole, and its peers, against cuBLAS in bf16.

A case takes every provider some 0.3 s to time. What takes longer is done once a shape: our kernels are compiled, two
for each of seven input sizes and three formats, and torchao and gemlite try configurations: hence ``--seconds``.
"""

from __future__ import annotations

from benchmarks.measuring.own import linears
from benchmarks.measuring.peers import BF16, GEMLITE_A8W4, INT_MM, NF4, ORBITQUANT, TORCHAO
from benchmarks.measuring.suite import Suite
from benchmarks.measuring.workloads import linears as shapes

SUITE = Suite(
    name="gpu_linear",
    operation="linear",
    shapes=shapes(),
    quick=((118_800, 12288, 3072), (75_600, 5120, 5120), (32_760, 8960, 1536)),
    reference=BF16,
    ours=linears,
    beside=(INT_MM,),
    peers=(TORCHAO, GEMLITE_A8W4, ORBITQUANT, NF4),
)
main = SUITE.main
