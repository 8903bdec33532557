"""The clip factors: against simulation, against what was measured while planning, and the table against SciPy."""

import numpy as np
import pytest

from dvdq_reference.oracle.arq import dequantize, quantize_block
from dvdq_reference.oracle.gaussian import BLOCKS, DECIMALS, best_clip, clip_error
from dvdq_reference.spec import clip_table
from dvdq_reference.spec.clip_factors import clip_factor
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule

# Measured by simulation over a grid of c with steps of 0.025: (block, absmax's error, c).
MEASURED = [
    (64, 0.01160, 0.875),
    (128, 0.01373, 0.825),
    (256, 0.01595, 0.775),
    (512, 0.01825, 0.75),
    (3072, 0.02404, 0.65),
]
# Where two valleys of the error tie, between these lengths, interpolation lands on the ridge between them.
RIDGE = {2: (4, 6), 3: (8, 12), 4: (16, 24), 5: (48, 64), 6: (96, 128), 7: (192, 256), 8: (256, 384)}


@pytest.mark.parametrize(("block", "error", "c"), MEASURED)
def test_the_measured_optimum(block, error, c):
    assert abs(clip_factor(4, block) - c) <= 0.025 / 2
    # One part in a hundred: the simulation's own spread.
    assert clip_error(1.0, 4, block)[0] == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize("clip", ["absmax", "gaussian", "signed"])
@pytest.mark.parametrize(("bits", "block"), [(2, 16), (4, 32), (4, 128), (6, 64), (8, 128)])
def test_the_expected_error_is_that_of_a_simulation(bits, block, clip):
    x = np.random.default_rng(0).normal(size=(4000, block))
    codes, scale, _ = quantize_block(x, ActivationRule(bits, None, clip))
    errors = np.square(x - dequantize(codes, scale)).mean(axis=1)
    signed = clip == "signed"
    c = 1.0 if clip == "absmax" else clip_factor(bits, block, signed=signed)
    expected = clip_error(c, bits, block, signed=signed)[0]
    # Five standard errors of the mean.
    assert abs(errors.mean() - expected) <= 5 * errors.std() / np.sqrt(errors.size)


def test_the_table_covers_what_the_oracle_computes():
    assert clip_table.BLOCKS == BLOCKS
    for factors in (clip_table.FACTORS, clip_table.SIGNED_FACTORS):
        assert {bits: len(row) for bits, row in factors.items()} == dict.fromkeys(range(2, 9), len(BLOCKS))


CHECKED = [(4, block, False) for block in BLOCKS] + [
    (bits, block, signed)
    for bits in range(2, 9)
    for block in (1, 32, 128, 3072, 15360)
    for signed in (False, True)
    if bits != 4 or signed
]


@pytest.mark.parametrize(("bits", "block", "signed"), CHECKED)
def test_the_table_is_what_scipy_finds(bits, block, signed):
    # Half a unit of the last place, and the minimiser's own tolerance of 1e-6.
    error = abs(clip_factor(bits, block, signed=signed) - best_clip(bits, block, signed=signed))
    assert error <= 0.5 * 10.0**-DECIMALS + 1e-6


@pytest.mark.parametrize("block", [64, 128, 256])
def test_a_sign_is_worth_more_than_a_clip(block):
    # .0099 against .0108 at 128, by simulation.
    signed = clip_error(clip_factor(4, block, signed=True), 4, block, signed=True)[0]
    assert signed < 0.95 * clip_error(clip_factor(4, block), 4, block)[0]


@pytest.mark.parametrize("bits", [2, 4, 6])
@pytest.mark.parametrize("block", [5, 20, 40, 80, 100, 160, 320, 640, 2560, 10000, 40000])
def test_between_the_lengths_of_the_table_interpolation_costs_nothing(bits, block):
    low, high = RIDGE[bits]
    best, found = clip_error([best_clip(bits, block), clip_factor(bits, block)], bits, block)
    if low < block < high:
        assert found <= 1.15 * best
    else:
        assert found <= (1 + 1e-5) * best


@pytest.mark.parametrize("block", [0, -1, 65537])
def test_a_length_outside_the_table_is_refused(block):
    with pytest.raises(DvdqError, match="clip_factor: block: expected 1 to 65536"):
        clip_factor(4, block)
