// Quantized blocks of a token: s = max|x| / LIMIT, codes v from LOW to HIGH, and Σ_blocks s Σ v.
#pragma once

// What the threads of a block of threads know together of each block of a token.
struct Blocks {
    uint32 largest[BLOCKS];  // bits of max|x|, which are in the order of numbers, NaN the largest
    float scale[BLOCKS];
    int sum[BLOCKS];  // Σ v

    // By all threads, before a barrier.
    DEVICE void clear() {
        NO_UNROLL for (int b = threadIdx.x; b < BLOCKS; b += THREADS) largest[b] = 0, sum[b] = 0;
    }

    // Scales and the token sum to where they belong, by the first warp; then as new.
    DEVICE void finish(float* scales, float* token_sum) {
        if (threadIdx.x >= 32) return;
        float total = 0;
        NO_UNROLL for (int b = threadIdx.x; b < BLOCKS; b += 32) {
            scales[b] = scale[b];
            total = total + scale[b] * static_cast<float>(sum[b]);
            largest[b] = 0, sum[b] = 0;
        }
        UNROLL for (int mask = 16; mask > 0; mask /= 2) total = total + __shfl_xor_sync(0xFFFFFFFF, total, mask);
        if (threadIdx.x == 0) *token_sum = total;
    }
};

// How many of `count` neighbours that share a block are combined by lanes: a power of two that divides them.
DEVICE constexpr int span_of(int count, int most) { return (count & -count) < most ? count & -count : most; }

// No less than the smallest normal number, 1 for zeros; NaN and infinity stay.
DEVICE float valid_scale(float scale, float largest) {
    constexpr float SMALLEST = 1.1754943508222875e-38f;
    if (largest == 0) return 1;
    return scale < SMALLEST ? SMALLEST : scale;
}

// 1.5 · 2^23: floats there are one apart, so that a sum is rounded to a whole number, half to even, in its low bits.
constexpr float WHOLE = 12582912.0f;

DEVICE uint32 low_bytes(const float* whole) {
    uint32 bits[4];
    UNROLL for (int i = 0; i < 4; ++i) bits[i] = static_cast<uint32>(__float_as_int(whole[i]));
    return __byte_perm(__byte_perm(bits[0], bits[1], 0x0040), __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
}

// The codes n of N neighbouring channels, given as WHOLE + n, where they belong; their sum is added to `sum`.
DEVICE void store_codes(const float (&whole)[1], uint8* to, int& sum) {
    const int code = __float_as_int(whole[0]) - __float_as_int(WHOLE);
    *to = static_cast<uint8>(code);
    sum += code;
}
template <int N>
DEVICE void store_codes(const float (&whole)[N], uint8* to, int& sum) {
    constexpr int WORDS = PACKED ? N / 8 : N / 4;
    struct alignas(4 * WORDS) Stored {
        uint32 word[WORDS];
    } stored;
    UNROLL for (int i = 0; i < WORDS; ++i) {
        if constexpr (PACKED) {
            float even[4], odd[4];
            UNROLL for (int k = 0; k < 4; ++k) even[k] = whole[8 * i + 2 * k], odd[k] = whole[8 * i + 2 * k + 1];
            const uint32 low = low_bytes(even), high = low_bytes(odd);
            sum = __dp4a(static_cast<int>(high), 0x01010101, __dp4a(static_cast<int>(low), 0x01010101, sum));
            stored.word[i] = (low & 0x0F0F0F0F) | (high << 4 & 0xF0F0F0F0);
        } else {
            stored.word[i] = low_bytes(whole + 4 * i);
            sum = __dp4a(static_cast<int>(stored.word[i]), 0x01010101, sum);
        }
    }
    *reinterpret_cast<Stored*>(to) = stored;
}
