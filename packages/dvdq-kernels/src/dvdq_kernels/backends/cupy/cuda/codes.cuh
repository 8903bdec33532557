// Stored weight codes q as numbers u = q - OFFSET, a word at a time. No code carries into the next: adding what OFFSET
// lacks of half the range leaves it in its bits, and flipping the highest one is then two's complement.
#pragma once

DEVICE uint32 centred_bytes(uint32 codes) { return codes + (128 - OFFSET) * 0x01010101u ^ 0x80808080u; }

DEVICE uint32 centred_nibbles(uint32 codes) { return codes + (8 - OFFSET) * 0x11111111u ^ 0x88888888u; }

// 16 u of the even and of the odd channels of 8 codes in nibbles: what is left in the upper half of a byte needs no
// shift for its sign.
DEVICE void decode_nibbles(uint32 codes, uint32& even, uint32& odd) {
    codes += (8 - OFFSET) * 0x11111111u;
    even = (codes << 4 & 0xF0F0F0F0u) ^ 0x80808080u;
    odd = (codes & 0xF0F0F0F0u) ^ 0x80808080u;
}
