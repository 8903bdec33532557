// Weight codes as the bytes that an integer product multiplies, written once before it.
#include "codes.cuh"

// u, int8 and one after the other, of `size` bytes of codes as stored, two a byte if PACKED.
// A thread turns 16 bytes; rows hold whole bytes, so that nothing of their length matters here.
KERNEL(256, 1) unpack(const uint8* __restrict__ stored, int8* __restrict__ out, int64 size) {
    const int64 first = (static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x) * 16;
    if (first + 16 <= size) {
        const Words4 given = *reinterpret_cast<const Words4*>(stored + first);
        if constexpr (PACKED) {
            Words4 pairs[2];
            UNROLL for (int i = 0; i < 4; ++i) {
                const uint32 even = given.word[i] & 0x0F0F0F0F, odd = given.word[i] >> 4 & 0x0F0F0F0F;
                pairs[i / 2].word[i % 2 * 2] = centred_bytes(__byte_perm(even, odd, 0x5140));
                pairs[i / 2].word[i % 2 * 2 + 1] = centred_bytes(__byte_perm(even, odd, 0x7362));
            }
            reinterpret_cast<Words4*>(out + 2 * first)[0] = pairs[0];
            reinterpret_cast<Words4*>(out + 2 * first)[1] = pairs[1];
        } else {
            Words4 bytes;
            UNROLL for (int i = 0; i < 4; ++i) bytes.word[i] = centred_bytes(given.word[i]);
            *reinterpret_cast<Words4*>(out + first) = bytes;
        }
        return;
    }
    for (int64 i = first; i < size; ++i) {
        if constexpr (PACKED) {
            out[2 * i] = static_cast<int8>((stored[i] & 15) - OFFSET);
            out[2 * i + 1] = static_cast<int8>((stored[i] >> 4) - OFFSET);
        } else {
            out[i] = static_cast<int8>(stored[i] - OFFSET);
        }
    }
}
