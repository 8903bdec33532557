"""Rotation and quantization in one pass, on a GPU, against a device-to-device copy of as many bytes.

Reading the activations and writing their codes is three bytes a value; scales and sums come to a thirty-second more at
most, and the copy is not charged with them.
"""

from __future__ import annotations

from _case import Provider
from _gpu import Work
from _ours import quantizers
from _peers import copy
from _shapes import activations
from _suite import Suite

SUITE = Suite(
    script=__file__,
    operation="rotate_quantize",
    shapes=activations(),
    quick=((118_800, 3072), (75_600, 5120), (32_760, 1536)),
    reference=Provider("copy", "", lambda case: copy(case, Work(3 * case.shape[0] * case.shape[1])), "torch"),
    ours=quantizers,
)

if __name__ == "__main__":
    SUITE.main()
