// Blockwise quantization of activations as they are.
#include "blocks.cuh"

// A block is PART chunks of VECTOR channels; lanes combine SPAN of them, memory the others.
constexpr int PART = BLOCK / VECTOR, SPAN = span_of(PART, 32);
constexpr int ROUNDS = (CHUNKS + THREADS - 1) / THREADS;
// Whether a thread keeps its chunks from the first pass over them to the second; else they are read again.
constexpr bool KEPT = ROUNDS * VECTOR * sizeof(IN) <= 128;

struct alignas(least<int>(VECTOR * sizeof(IN), 16)) Chunk {
    IN value[VECTOR];
};

template <typename T, class Combine>
DEVICE T combine_lanes(T value, Combine of) {
    UNROLL for (int mask = 1; mask < SPAN; mask *= 2) value = of(value, __shfl_xor_sync(0xFFFFFFFF, value, mask));
    return value;
}

// The largest key in SPAN chunks.
DEVICE Key largest_of(const Chunk& chunk) {
    Key largest = 0;
    UNROLL for (int k = 0; k < VECTOR; ++k) largest = larger_key(largest, key_of(to_float(chunk.value[k])));
    return combine_lanes(largest, [](Key a, Key b) { return larger_key(a, b); });
}

// WHOLE + round(x / scale), clamped. The quotient is correctly rounded (Markstein): by its second turn it is at most an
// ulp off. A division a value would take twice the instructions.
DEVICE float whole_code(float x, float scale, float reciprocal) {
    float q = x * reciprocal;
    q = __fmaf_rn(__fmaf_rn(-q, scale, x), reciprocal, q);
    q = __fmaf_rn(__fmaf_rn(-q, scale, x), reciprocal, q);
    if constexpr (CLIPPED) q = fminf(fmaxf(q, LOW), HIGH);
    return q + WHOLE;
}

// Codes, scales [tokens, BLOCKS] and token sums [tokens] of x, a token, which are `stride` apart, by each block.
KERNEL(THREADS, 1) quantize(const IN* __restrict__ x, uint8* __restrict__ codes, float* __restrict__ scale,
                            float* __restrict__ token_sum, int64 stride) {
    const int64 token = blockIdx.x;
    const IN* const from = x + token * stride;
    uint8* const to = codes + token * (CHUNKS * VECTOR / (PACKED ? 2 : 1));
    Blocks& blocks = *reinterpret_cast<Blocks*>(shared_memory());
    const auto read = [&](int chunk) {
        return chunk < CHUNKS ? *reinterpret_cast<const Chunk*>(from + chunk * VECTOR) : Chunk{};
    };
    Chunk kept[KEPT ? ROUNDS : 1];
    if constexpr (KEPT)
        UNROLL for (int i = 0; i < ROUNDS; ++i) kept[i] = read(threadIdx.x + i * THREADS);
    const auto for_chunks = [&](auto use) {
        if constexpr (KEPT) {
            UNROLL for (int i = 0; i < ROUNDS; ++i) use(kept[i], threadIdx.x + i * THREADS);
        } else {
            for (int i = 0; i < ROUNDS; ++i) use(read(threadIdx.x + i * THREADS), threadIdx.x + i * THREADS);
        }
    };
    const auto leads = [](int chunk) { return chunk < CHUNKS && chunk % SPAN == 0; };

    if constexpr (SPAN != PART) {
        blocks.clear();
        __syncthreads();
        for_chunks([&](const Chunk& chunk, int index) {
            const Key largest = largest_of(chunk);
            if (leads(index)) atomicMax(&blocks.largest[index / PART], stored_key(largest));
        });
        __syncthreads();
    }
    for_chunks([&](const Chunk& chunk, int index) {
        const int block = index < CHUNKS ? index / PART : 0;
        float largest;
        if constexpr (SPAN == PART)
            largest = value_of(stored_key(largest_of(chunk)));
        else
            largest = value_of(blocks.largest[block]);
        const float s = valid_scale(__fdiv_rn(largest, LIMIT), largest), reciprocal = __fdiv_rn(1.0f, s);
        float whole[VECTOR];
        UNROLL for (int k = 0; k < VECTOR; ++k) whole[k] = whole_code(to_float(chunk.value[k]), s, reciprocal);
        int sum = 0;
        if (index < CHUNKS) store_codes(whole, to + index * VECTOR / (PACKED ? 2 : 1), sum);
        sum = combine_lanes(sum, [](int a, int b) { return a + b; });
        if (!leads(index)) return;
        blocks.scale[block] = s;
        if constexpr (SPAN == PART)
            blocks.sum[block] = sum;
        else
            atomicAdd(&blocks.sum[block], sum);
    });
    __syncthreads();
    blocks.finish(scale + token * BLOCKS, token_sum + token);
}
