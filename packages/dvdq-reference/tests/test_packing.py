"""Packing loses nothing, and lies as the canonical layout says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dvdq_reference.oracle.packing import pack, unpack
from dvdq_reference.spec.layout import packed_width


def test_the_low_nibble_is_the_even_channel():
    np.testing.assert_array_equal(pack([[1, 2, 15, 0]], 4), [[0x21, 0x0F]])


@given(st.integers(2, 8), st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_unpack_undoes_pack(bits, rows, pairs, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, size=(rows, 2 * pairs))
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (rows, packed_width("test", 2 * pairs, bits))
    np.testing.assert_array_equal(unpack(packed, bits, 2 * pairs), codes)


def test_every_byte_has_its_own_pair_of_codes():
    every = np.arange(256)[None]
    np.testing.assert_array_equal(pack(unpack(every, 4, 512), 4), every)
