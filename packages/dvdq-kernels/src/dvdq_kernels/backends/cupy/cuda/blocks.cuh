// Quantized blocks of a token: s = x_max / LIMIT, codes v from LOW to HIGH, and Σ_blocks s Σ v. The value x_max of largest
// magnitude has its sign if there are SIGNED_SCALES, and else none.
#pragma once

// What is compared to find x_max, NaN above all: a magnitude, or bits in the order of magnitudes with the sign as the last,
// so that of two of a magnitude the negative one is the larger.
DEVICE auto key_of(float x) {
    if constexpr (SIGNED_SCALES) {
        const uint32 bits = static_cast<uint32>(__float_as_int(x));
        return bits << 1 | bits >> 31;
    } else {
        return fabsf(x);
    }
}
using Key = decltype(key_of(0.0f));

DEVICE float larger_key(float a, float b) { return larger_or_nan(a, b); }
DEVICE uint32 larger_key(uint32 a, uint32 b) { return a > b ? a : b; }
// As they lie in memory, in the same order, and back.
DEVICE uint32 stored_key(float key) { return static_cast<uint32>(__float_as_int(key)); }
DEVICE uint32 stored_key(uint32 key) { return key; }
DEVICE float value_of(uint32 stored) { return __int_as_float(static_cast<int>(SIGNED_SCALES ? stored >> 1 | stored << 31 : stored)); }

// What the threads of a block of threads know together of each block of a token.
struct Blocks {
    uint32 largest[BLOCKS];  // the stored key of x_max
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

// No nearer to 0 than the smallest normal number, 1 for zeros; NaN and infinity stay.
DEVICE float valid_scale(float scale, float largest) {
    constexpr float SMALLEST = 1.1754943508222875e-38f;
    if (largest == 0) return 1;
    if constexpr (SIGNED_SCALES) return fabsf(scale) < SMALLEST ? (largest > 0 ? -SMALLEST : SMALLEST) : scale;
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
