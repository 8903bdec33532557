"""Linears of HunyuanVideo and Wan on a GPU: ours, product alone and whole, and its peers, against cuBLAS in bf16.

A case takes every provider some 0.3 s to time. What takes longer is done once a shape: our kernels are compiled, two
for each of seven input sizes and three formats, and torchao and gemlite try configurations: hence ``--seconds``.
"""

from __future__ import annotations

from _ours import linears
from _peers import BF16, GEMLITE_A8W4, INT_MM, NF4, ORBITQUANT, TORCHAO
from _shapes import linears as shapes
from _suite import Suite

SUITE = Suite(
    script=__file__,
    operation="linear",
    shapes=shapes(),
    quick=((118_800, 12288, 3072), (75_600, 5120, 5120), (32_760, 8960, 1536)),
    reference=BF16,
    ours=linears,
    beside=(INT_MM,),
    peers=(TORCHAO, GEMLITE_A8W4, ORBITQUANT, NF4),
)

if __name__ == "__main__":
    SUITE.main()
